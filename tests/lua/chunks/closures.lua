-- Closures that share variables, outlive them, and keep one another.
local n = ...
local function counter()
    local count = 0
    return function() count = count + 1 return count end, function() return count end
end
local kept = {}
for i = 1, n do
    local up, get = counter()
    kept[i] = { up, get, function() return up() + get() + i end }
end
for i = 1, n do
    assert(kept[i][3]() == 2 + i)
    assert(kept[i][2]() == 1)
end
local chain = function() return 0 end
for _ = 1, math.min(n, 150) do
    local inner = chain
    chain = function() return 1 + inner() end
end
assert(chain() == math.min(n, 150))
