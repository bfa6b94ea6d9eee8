-- Uses each library of the version at hand. What fails for want of memory is an error, or is caught here.
local unpack = table.unpack or unpack
local compile = loadstring or load

-- base
local t = setmetatable({}, {
    __index = function(_, k) return k .. "!" end,
    __call = function(_, a) return { a } end,
    __concat = function() return "joined" end,
    __tostring = function() return "me" end,
})
assert(t.x == "x!" and t(5)[1] == 5 and t .. "y" == "joined" and tostring(t) == "me")
assert(select("#", pcall(error, { 1 })) == 2)
assert(assert(compile("local a = ... return function() return a end"))(7)() == 7)
assert(not compile("syntax error here"))
assert(tonumber("0x10") == 16 and rawget(t, "x") == nil)
xpcall(function() error("handled") end, function(m) return debug.traceback(m, 1) end)
for _, v in ipairs({ 1, 2, 3 }) do assert(v) end
local loader = package.preload
loader.made = function(name) return { name = name } end
assert(require("made").name == "made")
pcall(require, "no.such.module")

-- coroutine
local co = coroutine.wrap(function(a)
    local b = coroutine.yield(a + 1)
    return { a, b }
end)
assert(co(1) == 2 and co("b")[2] == "b")
local left = coroutine.create(function() local big = {} for i = 1, 40 do big[i] = i end coroutine.yield(big) end)
coroutine.resume(left)

-- table
local list = {}
for i = 1, 70 do table.insert(list, i % 11 .. "") end
table.sort(list, function(a, b) return a < b end)
table.remove(list, 1)
assert(#table.concat(list, ",") > 70)
if table.move then assert(#table.move(list, 1, 60, 30, {}) > 0) end
if table.pack then assert(table.pack(unpack(list, 1, 30)).n == 30) end

-- string
local text = ("zmalloc "):rep(200)
assert(#text:gsub("%w+", function(w) return w:upper() .. #w end) > 1600)
assert(#text:gsub("z", { z = "zz" }) == 1800)
assert(text:find("c z") and text:match("(%w+) ") == "zmalloc")
for w in text:sub(1, 40):gmatch("%a+") do assert(w == "zmalloc") end
assert(("%q %s %g %x %10.3s"):format("a\nb", text, 1.5, 255, "abcdef"))
assert(text:reverse():lower():byte(2) and string.char(65, 66) == "AB")
local dumped = string.dump(function(a) local b = "constant" return a .. b end)
assert(assert(compile(dumped, "d"))("a ") == "a constant")
if string.pack then
    assert(string.unpack("z", string.pack("z", ("p"):rep(2000))) == ("p"):rep(2000))
end
if utf8 then
    assert(utf8.char(228, 8364, 119070):len() == 9 and utf8.len("äöü") == 3)
    for _, c in utf8.codes("aä") do assert(c > 0) end
end

-- math, bits
assert(math.floor(3.7) == 3 and math.max(1, 9) == 9 and math.random(5) <= 5)
if bit32 then assert(bit32.band(6, 3) == 2) end
if jit then
    local bit = require("bit")
    assert(bit.tohex(bit.bxor(0xff, 0x0f), 2) == "f0")
end

-- io, where it is opened, and os
local name = os.tmpname()
local file = io and io.open(name, "w")
if file then
    file:write("line one\nline two\n", ("long "):rep(400), "\n")
    file:close()
    for line in io.lines(name) do assert(line) end
    file = assert(io.open(name, "r"))
    file:setvbuf("full", 256)
    assert(#file:read("*a") > 2000)
    file:seek("set", 0)
    assert(file:read("*l") == "line one")
    file:close()
end
os.remove(name)
assert(os.date("!%Y", 0) == "1970" and os.date("*t").year > 2000 and os.time() > 0 and os.getenv("PATH"))

-- debug
local function f(a) local b = a return debug.getinfo(1, "nSlu"), debug.getlocal(1, 1), b end
assert(f(1).currentline)
debug.sethook(function() end, "l")
local _ = 1 + 1
debug.sethook()
assert(debug.getupvalue(f, 1) == nil or true)
assert(#debug.traceback("m") > 1)

-- finalizers
local function finalized(g)
    if jit then -- an error in a finalizer is the end of LuaJIT 2.1
        local unsafe = g
        g = function(object) pcall(unsafe, object) end
    end
    if not newproxy then return setmetatable({}, { __gc = g }) end
    local u = newproxy(true)
    getmetatable(u).__gc = g
    return u
end
finalized(function() return { "garbage" } end)
KEPT = finalized(function() return ("x"):rep(100) end)
collectgarbage()

-- what only later versions have
if _VERSION >= "Lua 5.4" then
    assert(compile([[
        local closed = {}
        do
            local a <close> = setmetatable({}, { __close = function() closed[1] = { "closed" } end })
            local b <const> = 5
        end
        assert(closed[1])
        warn("@off") warn("a warning ", "in pieces")
        coroutine.close(coroutine.create(print))
    ]]))()
end
if _VERSION >= "Lua 5.2" and not jit then
    assert(assert(load("x = 1 goto done do x = 2 end ::done:: return x", "env", "t", {}))() == 1)
end
if _VERSION >= "Lua 5.3" then
    assert(assert(compile("return 7 // 2 + (5 & 4) + (1 << 10)"))() == 1031)
end
if jit then
    local sum = 0
    for i = 1, 300 do sum = sum + i % 7 end -- compiled
    local ffi = require("ffi")
    ffi.cdef("struct zmalloc_everything { int a; double b; };")
    local s = ffi.new("struct zmalloc_everything", 1, 2.5)
    assert(s.b == 2.5 and #ffi.string(ffi.new("char[50]", "abc"), 50) == 50 and sum > 0)
end
return true
