-- The loops of a flow graph, as a compiler finds them: a large live heap, marked over and over.
local regions = tonumber(... or 2500)

local DEEP = 3 -- loops inside each other in a region
local blocks = {}

local function block()
    local new = { id = #blocks + 1, to = {}, from = {} }
    blocks[new.id] = new
    return new
end

local function edge(a, b)
    a.to[#a.to + 1] = b
    b.from[#b.from + 1] = a
    return b
end

-- A loop, and those inside it; what it returns is the block behind it.
local function loop(before, depth)
    local head = edge(before, block())
    local body = edge(head, block())
    local tail = depth > 1 and loop(body, depth - 1) or edge(body, block())
    edge(tail, head)
    return edge(tail, block())
end

local function build()
    local at = block()
    for _ = 1, regions do
        local left, right = edge(at, block()), edge(at, block())
        at = edge(loop(left, DEEP), block())
        edge(right, at)
        edge(at, at)
    end
end

-- Blocks in the order of a walk into the depth, with the number of the last one below each.
local function number()
    local order, of, last = {}, {}, {}
    local stack, next_edge = { blocks[1] }, { 1 }
    order[1], of[blocks[1]] = blocks[1], 1
    while #stack > 0 do
        local top = stack[#stack]
        local to = top.to[next_edge[#stack]]
        if not to then
            last[of[top]] = #order
            stack[#stack], next_edge[#next_edge] = nil, nil
        else
            next_edge[#next_edge] = next_edge[#next_edge] + 1
            if not of[to] then
                order[#order + 1], of[to] = to, #order + 1
                stack[#stack + 1], next_edge[#next_edge + 1] = to, 1
            end
        end
    end
    return order, of, last
end

local function find(set)
    while set.up do
        set.up = set.up.up or set.up
        set = set.up
    end
    return set
end

-- From the innermost head outwards: all that leads to a head's back edges is one set from then on.
local function find_loops()
    local order, of, last = number()
    local sets, loops = {}, {}
    for i = 1, #order do
        sets[i] = { number = i }
    end
    for head = #order, 1, -1 do
        local members, has, is_loop = {}, {}, false
        local function add(set)
            if set ~= sets[head] and not has[set] then
                has[set] = true
                members[#members + 1] = set
            end
        end
        for _, from in ipairs(order[head].from) do
            local n = of[from]
            if head <= n and n <= last[head] then
                is_loop = true
                add(find(sets[n]))
            end
        end
        local done = 0
        while done < #members do
            done = done + 1
            for _, from in ipairs(order[members[done].number].from) do
                local n = of[from]
                local first = members[done].number
                if not (first <= n and n <= last[first]) then
                    add(find(sets[n]))
                end
            end
        end
        for _, set in ipairs(members) do
            set.up = sets[head]
        end
        if is_loop then
            loops[#loops + 1] = { head = order[head], members = members }
        end
    end
    return loops
end

build()
local kept = {}
for i = 1, 4 do
    kept[i] = find_loops()
    assert(#kept[i] == regions * (DEEP + 1))
end
