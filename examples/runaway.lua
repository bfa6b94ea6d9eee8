-- A script with a bug: its cache never forgets anything.

local cache = {}

local function handle(number)
  cache[number] = { id = number, body = ("x"):rep(100) .. number, tags = { number, number + 1 } }
end

local number = 0
while true do
  handle(number)
  number = number + 1
end
