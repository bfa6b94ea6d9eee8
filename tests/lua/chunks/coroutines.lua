-- Coroutines that end, that are left in the middle, that fail, that grow their stacks.
local n = ...
local unpack = table.unpack or unpack
local waiting = {}
for i = 1, n do
    local co = coroutine.create(function(...)
        local mine = { ... }
        while true do
            mine[#mine + 1] = coroutine.yield(#mine)
        end
    end)
    assert(coroutine.resume(co, 1, 2, i))
    assert(coroutine.resume(co, 4))
    waiting[i % 50 + 1] = co
end
for i = 1, n do
    local step = coroutine.wrap(function(a) error({ a }) end)
    local ok, what = pcall(step, i)
    assert(not ok and (type(what) ~= "table" or what[1] == i))
end
local function depth(k)
    if k == 0 then return coroutine.yield("deep") end
    return (depth(k - 1)) -- no tail call: a frame each
end
for _ = 1, 5 do
    local co = coroutine.create(depth)
    local ok, what = coroutine.resume(co, 150)
    assert(ok and what == "deep" or what:find("memory") or what:find("error handling"), what)
    pcall(unpack, {}, 1, 200) -- no memory: "too many results"
end
if coroutine.close then
    for _, co in pairs(waiting) do
        assert(coroutine.close(co))
    end
end
