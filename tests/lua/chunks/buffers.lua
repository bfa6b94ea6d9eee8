-- What grows a string buffer: concat, rep, format, gsub, byte and char.
local n = ...
local unpack = table.unpack or unpack
local parts = {}
for i = 1, n do
    parts[i] = "part " .. i
end
local all = table.concat(parts, ", ")
assert(#all > n * 6)
assert(#(all):rep(3, ";") >= 3 * #all)
assert(#("%s and %s"):format(all, all) == 2 * #all + 5)
assert(#all:gsub("part", "piece of it") > #all)
assert(string.char(unpack({ ("zmalloc"):byte(1, -1) })) == "zmalloc")
for i = 1, 20 do
    assert(#("ab"):rep(i * n) == 2 * i * n)
end
local ok, what = pcall(table.concat, { "a", {}, "c" })
assert(not ok and what:find("concat") or what:find("memory"))
