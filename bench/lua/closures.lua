-- Closures that share and own upvalues.
local rounds = tonumber(... or 300000)

local function counter(start)
    local n = start
    local function up(by)
        n = n + by
        return n
    end
    return up, function()
        return n
    end
end

local sum = 0
for i = 1, rounds do
    local up, get = counter(i)
    up(1)
    sum = sum + get()
end
assert(sum == rounds * (rounds + 1) / 2 + rounds)
