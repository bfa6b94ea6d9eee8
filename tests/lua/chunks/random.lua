-- As many random operations as are asked for, on objects that live on from call to call.
local seed, operations = ...
local unpack = table.unpack or unpack
local compile = loadstring or load
local pool = POOL or {}
POOL = pool
local SIZE = 300

local function below(n)
    seed = (seed * 16807) % 2147483647
    return seed % n
end

local function finalized(f)
    if jit then -- an error in a finalizer is the end of LuaJIT 2.1
        local unsafe = f
        f = function(object) pcall(unsafe, object) end
    end
    if not newproxy then return setmetatable({}, { __gc = f }) end
    local u = newproxy(true)
    getmetatable(u).__gc = f
    return u
end

local actions = {
    function() return {} end,
    function() return { below(9), x = below(9) } end,
    function() local t = {} for i = 1, below(40) do t[i] = i end return t end,
    function() local t = {} for i = 1, below(40) do t["k" .. i] = i end return t end,
    function() return "s" .. below(1000) end,
    function() return ("long"):rep(below(120)) end,
    function(old) return type(old) == "string" and old:sub(1, 200) .. "+" or tostring(old) end,
    function(old) return function() return old end end,
    function(old)
        local n = below(5)
        return function() n = n + 1 return n, type(old) end
    end,
    function()
        local co = coroutine.create(function(a) while a do a = coroutine.yield({ a }) end end)
        coroutine.resume(co, below(5))
        return co
    end,
    function(old)
        if type(old) == "thread" then coroutine.resume(old, below(3) > 0) end
        return old
    end,
    function(old) return type(old) == "function" and { old() } or { old } end,
    function(old)
        if type(old) == "table" then old[#old + 1] = below(100) old[below(20)] = nil end
        return old
    end,
    function()
        return (("a-b-c-d-e"):rep(1 + below(5)):gsub("%w", function(c) return c:rep(below(60)) end))
    end,
    function() local t = {} for i = 1, below(60) do t[i] = "p" .. i end return table.concat(t, ",") end,
    function() return assert(compile("local a = ... return { a, " .. below(50) .. " }"))(1) end,
    function() return finalized(function() return { 1 } end) end,
    function() return finalized(function() if below(4) == 0 then error("in __gc") end end) end,
    function() return setmetatable({ below(3) }, { __mode = "k" }) end,
    function() return pcall(error, { below(3) }) and nil or false end,
    function() return ("%d %s"):format(below(99), ("f"):rep(below(30))) end,
    function() return { unpack({ 1, 2, 3, below(9) }) } end,
    function() return nil end,
    function() return nil end,
}
local function step()
    local slot = below(SIZE)
    pool[slot] = actions[below(#actions) + 1](pool[slot])
    if type(pool[slot]) == "table" and below(50) == 0 then pool[slot] = nil end
end
for _ = 1, operations do
    pcall(step)
end
if below(10) == 0 then
    for slot = 0, SIZE do -- not pairs(): after a memory error it can be endless in Lua 5.1 and 5.2
        if below(2) == 0 then pool[slot] = nil end
    end
end
if below(20) == 0 then pcall(collectgarbage) end
