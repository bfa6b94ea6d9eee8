-- Strings made and dropped: concatenated, formatted, replaced, joined.
local rounds = tonumber(... or 60000)

local words = {}
for i = 1, rounds do
    local word = "word" .. i
    words[#words + 1] = string.format("%s=%d;", word:upper(), i):gsub("%d", "#")
    if #words == 100 then
        assert(#table.concat(words, ",") > 100)
        words = {}
    end
    assert(#(word:rep(20)) == 20 * #word)
end
