-- A string buffer is open while the callback of gsub takes and frees memory.
local n = ...
local text = ("word "):rep(n)
local kept = {}
local out = text:gsub("%w+", function(word)
    kept[#kept % 100 + 1] = { word, word .. #kept }
    return word:rep(1 + #kept % 7)
end)
assert(#out >= #text)
local nested = ("word "):rep(100):gsub("w", function()
    return (("abc"):gsub(".", { a = "xx", b = ("y"):rep(50) }))
end)
assert(#nested > 500)
local ok, what = pcall(string.gsub, text, "o", function() error("in the callback", 0) end)
assert(not ok and (what == "in the callback" or what:find("memory")))
local co = coroutine.wrap(function()
    return (("word "):rep(40):gsub("r", function() return ("z"):rep(20) end))
end)
assert(#co() > 200)
