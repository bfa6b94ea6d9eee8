-- Objects with a metatable in a queue and an index: records that come and go while many are live.
local rounds = tonumber(... or 200000)

local Order = {}
Order.__index = Order

function Order.new(id)
    return setmetatable({ id = id, lines = { id, id + 1 }, state = "new" }, Order)
end

function Order:close()
    self.state = "closed"
    return #self.lines
end

local live, first, lines = {}, 1, 0
for i = 1, rounds do
    live[i] = Order.new(i)
    if i - first >= 5000 then
        lines = lines + live[first]:close()
        live[first] = nil
        first = first + 1
    end
end
assert(lines == 2 * (first - 1))
