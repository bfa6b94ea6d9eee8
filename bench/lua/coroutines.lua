-- Coroutines: short ones in great number, a chain of filters, and a crowd that takes turns.
local rounds = tonumber(... or 60000)

local wrap, yield = coroutine.wrap, coroutine.yield

local function numbers(first, last)
    return wrap(function()
        for i = first, last do
            yield(i)
        end
    end)
end

local function only(source, divisor)
    return wrap(function()
        for n in source do
            if n % divisor == 0 then
                yield(n)
            end
        end
    end)
end

-- short ones
local sum = 0
for i = 1, rounds do
    for n in numbers(i, i + 2) do
        sum = sum + n
    end
end
assert(sum == 3 * (rounds * (rounds + 1) / 2) + 3 * rounds)

-- a chain
local count = 0
for _ in only(only(only(numbers(1, rounds), 2), 3), 5) do
    count = count + 1
end
assert(count == math.floor(rounds / 30))

-- a crowd: each holds something from turn to turn, and at its end another takes its place
local turns = 0
local function member(i)
    return coroutine.create(function()
        local held = {}
        for turn = 1, 1 + i % 7 do
            held[turn] = { i, turn }
            turns = turns + 1
            yield()
        end
        assert(#held == 1 + i % 7)
    end)
end

local crowd, made, ended = {}, 0, 0
for i = 1, 500 do
    made = made + 1
    crowd[i] = member(made)
end
for i = 1, rounds * 2 do
    local place = 1 + i % #crowd
    assert(coroutine.resume(crowd[place]))
    if coroutine.status(crowd[place]) == "dead" then
        ended = ended + 1
        made = made + 1
        crowd[place] = member(made)
    end
end
assert(turns + ended == rounds * 2 and made == ended + 500)
