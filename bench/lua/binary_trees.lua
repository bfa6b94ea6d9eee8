-- Binary trees of tables, built and walked: nearly all of the time is allocation and collection.
local depth = tonumber(... or 13)

local function build(n)
    if n == 0 then
        return {}
    end
    return { build(n - 1), build(n - 1) }
end

local function count(tree)
    if tree[1] then
        return 1 + count(tree[1]) + count(tree[2])
    end
    return 1
end

local kept, nodes = build(depth), 0
for n = 4, depth, 2 do
    for _ = 1, 2 ^ (depth - n + 4) do
        nodes = nodes + count(build(n))
    end
end
assert(count(kept) == 2 ^ (depth + 1) - 1 and nodes > 0)
