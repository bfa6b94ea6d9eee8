-- Finalizers that take memory, that bring objects back, that fail; here and at the end of the state.
local n = ...
local proxy = newproxy -- Lua 5.1 has no __gc of tables
local function finalized(f)
    if jit then -- an error in a finalizer is the end of LuaJIT 2.1
        local unsafe = f
        f = function(object) pcall(unsafe, object) end
    end
    if not proxy then
        return setmetatable({}, { __gc = f })
    end
    local u = proxy(true)
    getmetatable(u).__gc = f
    return u
end
local count, revived = 0, {}
for i = 1, n do
    finalized(function() count = count + 1 revived[count % 10] = { ("f"):rep(i % 300) } end)
    if i % 10 == 0 then
        finalized(function() error("in a finalizer " .. i) end)
    end
    if i % 7 == 0 then
        finalized(function(object) revived[i % 10] = object end)
    end
end
-- 5.1 to 5.3 raise a finalizer's error where the collector happens to run.
for _ = 1, 4 do
    pcall(collectgarbage)
end
assert(count <= n)
AT_THE_END = finalized(function()
    local last = {}
    for i = 1, 100 do
        last[i] = "at the end " .. i
    end
end)
