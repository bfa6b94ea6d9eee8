-- Deep stacks, of Lua calls and of values; the end of them is an error like any other.
local n = ...
local unpack = table.unpack or unpack
local function down(k)
    if k == 0 then return 0 end
    return 1 + down(k - 1)
end
assert(down(n) == n)
local function for_ever(k) return 1 + for_ever(k + 1) end
if n >= 2000 then
    local ok, what = pcall(for_ever, 1)
    assert(not ok and (what:find("overflow") or what:find("memory") or what:find("error handling")), what)
end
local values = {}
for i = 1, math.min(n, 3000) do
    values[i] = i
end
local function count(...) return select("#", ...) end
assert(count(unpack(values)) == #values)
local ok = pcall(string.rep) -- a C function's error
assert(not ok)
local function handler(what) return { what, debug.traceback() } end
assert(not xpcall(function() down("x") end, handler))
