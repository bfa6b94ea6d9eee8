-- Short strings and long ones, many and few, that live and that do not.
local n = ...
local kept = {}
for i = 1, n do
    kept[i] = "short " .. i
    local long = ("x"):rep(i % 700) .. i
    kept[i + n] = long:upper():sub(3, -3)
end
local all = ""
for i = 1, 60 do
    all = all .. kept[1 + i % n] .. ("-"):rep(i)
end
assert(#all > 1000)
for i = 1, n do
    assert(("%s %d %5.2f %q"):format(kept[i], i, i / 3, kept[i + n]))
end
assert(#all:reverse() == #all and all:lower() ~= nil)
