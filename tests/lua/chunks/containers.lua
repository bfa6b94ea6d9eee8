-- Tables as lists, as records, as sets; filled, emptied, rehashed, nested, weak.
local n = ...
local list, set = {}, {}
for i = 1, n do
    list[i] = { i, tostring(i), x = i, y = -i }
    set["key " .. i] = list[i]
end
for i = 1, n, 2 do
    set["key " .. i] = nil
    list[i] = false
end
for i = n, 1, -1 do
    list[i] = nil
end
local weak = setmetatable({}, { __mode = "kv" })
for i = 1, n do
    weak[i] = {}
    weak[{}] = i
end
local deep = {}
for _ = 1, n do
    deep = { deep }
end
local sorted = {}
for i = 1, n do
    sorted[i] = (i * 7919) % n
end
table.sort(sorted)
for i = 2, n do
    assert(sorted[i - 1] <= sorted[i])
end
assert(next(set) ~= nil or n < 2)
