-- Chunks that are made, compiled, dumped and compiled again.
local n = ...
local compile = loadstring or load
local lines = {}
for i = 1, n do
    lines[i] = ("local v%d = { 'constant %d', %d, function(a, ...) return a, v%d end }"):format(
        i % 150, i, i, i % 150)
    if i % 100 == 0 then
        lines[i] = "end do"
    end
end
local text = "do " .. table.concat(lines, "\n") .. "\nend return ..."
local chunk, what = compile(text, "=big")
assert(chunk, what)
assert(chunk(42) == 42)
local again = assert(compile(string.dump(chunk), "=dumped", "b"))
assert(again(43) == 43)
local bad, why = compile(text .. " and this is no Lua", "=bad")
assert(not bad and #why > 0)
local pieces, i = { "return ", "'", ("p"):rep(n), "'" }, 0
local pieced = assert(load(function() i = i + 1 return pieces[i] end))
assert(#pieced() == n)
