-- A JSON reader and writer, on a document of records.
local rounds = tonumber(... or 12)

local write
local writers = {
    ["nil"] = function()
        return "null"
    end,
    number = tostring,
    boolean = tostring,
    string = function(s)
        return '"' .. s:gsub('[%c"\\]', function(c)
            return string.format("\\u%04x", c:byte())
        end) .. '"'
    end,
    table = function(t)
        local parts = {}
        if #t > 0 then
            for i, value in ipairs(t) do
                parts[i] = write(value)
            end
            return "[" .. table.concat(parts, ",") .. "]"
        end
        for key, value in pairs(t) do
            parts[#parts + 1] = write(key) .. ":" .. write(value)
        end
        return "{" .. table.concat(parts, ",") .. "}"
    end,
}

function write(value)
    return writers[type(value)](value)
end

local read

local function read_string(text, at)
    local out = text:match('^[^"]*', at)
    return out, at + #out + 1
end

local function read_list(text, at, close, pair)
    local out, n = {}, 0
    while text:sub(at, at) ~= close do
        local key, value
        if pair then
            key, at = read_string(text, at + 1)
            value, at = read(text, at + 1)
        else
            n = n + 1
            key = n
            value, at = read(text, at)
        end
        out[key] = value
        at = text:match("^,()", at) or at
    end
    return out, at + 1
end

function read(text, at)
    local c = text:sub(at, at)
    if c == '"' then
        return read_string(text, at + 1)
    elseif c == "{" then
        return read_list(text, at + 1, "}", true)
    elseif c == "[" then
        return read_list(text, at + 1, "]", false)
    end
    local word = text:match("^[%w%.%-]+", at)
    return tonumber(word) or word == "true", at + #word
end

local document = {}
for i = 1, 1000 do
    document[i] = { id = i, name = "record " .. i, tags = { "a", "b", i }, open = i % 2 == 0 }
end
for _ = 1, rounds do
    local again = read(write(document), 1)
    assert(#again == 1000 and again[17].name == "record 17" and again[4].tags[3] == 4)
end
