-- Tables that grow: lists, keys of each kind, matrices, and some that are emptied and filled again.
local rounds = tonumber(... or 60)

local function list(n)
    local out = {}
    for i = 1, n do
        out[#out + 1] = i
    end
    return out
end

local function index(n, name)
    local out = {}
    for i = 1, n do
        out[name(i)] = i
    end
    return out
end

local function size(t)
    local n = 0
    for _ in pairs(t) do
        n = n + 1
    end
    return n
end

local function text(i)
    return "key " .. i
end

local function sparse(i)
    return i * 1000
end

local function half(i)
    return i + 0.5
end

local function matrix(n)
    local rows = {}
    for i = 1, n do
        local row = {}
        for j = 1, n do
            row[j] = i * j
        end
        rows[i] = row
    end
    return rows
end

local again = {}
for round = 1, rounds do
    assert(#list(5000) == 5000)
    for _ = 1, 300 do
        assert(#list(12) == 12)
    end
    assert(size(index(1500, text)) == 1500)
    assert(size(index(1500, sparse)) == 1500 and size(index(1500, half)) == 1500)
    assert(matrix(50)[50][50] == 2500)
    for i = 1, 2000 do
        again[i + round * 100] = { i }
    end
    for key in pairs(again) do
        again[key] = nil
    end
    assert(next(again) == nil)
end
