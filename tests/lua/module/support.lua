-- support.lua - what the cases of this folder share: checks that say what they saw, a runaway, and
-- child processes with the Lua that runs this.

local zmalloc = require "zmalloc"

local support = {}

support.unpack = table.unpack or unpack
support.is_luajit = rawget(_G, "jit") ~= nil
support.version = tonumber(_VERSION:match("%d%.%d"))
-- Lua collects and asks again when a request is refused, and tells the types of its blocks.
support.asks_again = support.version > 5.1

local function show(value)
  return type(value) == "string" and string.format("%q", value) or tostring(value)
end

function support.same(seen, expected, what)
  if seen ~= expected then
    error((what or "value") .. ": expected " .. show(expected) .. ", saw " .. show(seen), 2)
  end
end

function support.check(condition, what)
  if not condition then
    error(what or "the check failed", 2)
  end
end

-- f() raises an error whose text, without the place in front, is `text`.
function support.fails(f, text)
  local ok, err = pcall(f)
  if ok then
    error("expected an error: " .. text, 2)
  end
  err = tostring(err):gsub("^[^:\n]+:%d+: ", "")
  if err ~= text then
    error("expected the error\n  " .. text .. "\nsaw\n  " .. err, 2)
  end
end

-- Until nothing more comes back: Lua 5.1 and LuaJIT halve a large string buffer in each cycle.
function support.settle()
  for _ = 1, support.asks_again and 3 or 20 do
    zmalloc.collect()
  end
  return zmalloc.used()
end

-- What is measured has no garbage of before in it: without emergency collections it counts, too.
function support.begin()
  support.settle()
  zmalloc.reset_peak()
  return zmalloc.used()
end

-- What the collector and we count is the same: Lua 5.5's is blind to long strings.
function support.agrees()
  local count = collectgarbage("count") * 1024
  local used = zmalloc.used()
  if support.version < 5.5 and used ~= count then
    error("used is " .. used .. ", the collector counts " .. count, 2)
  end
end

-- Grows until something stops it; a table of live blocks, so nothing can be collected.
function support.run_away()
  local live = {}
  for i = 1, 1e8 do
    live[i] = { i }
  end
  return live
end

-- Runs f with a limit that is lifted afterwards, whatever happens.
function support.with_limit(n, options, f)
  local function lift(ok, ...) -- made before, as there may be no room for anything then
    zmalloc.limit(nil)
    if not ok then
      error(..., 0)
    end
    return ...
  end
  zmalloc.limit(n, options)
  return lift(pcall(f))
end

-- The program that runs this, and how it finds modules.
local function interpreter()
  local pipe = assert(io.popen("readlink /proc/$PPID/exe"))
  local path = pipe:read("*l")
  pipe:close()
  return assert(path, "no /proc to find the interpreter by")
end

-- What a script prints in a process of its own.
function support.child(code)
  local name = os.tmpname()
  local file = assert(io.open(name, "w"))
  file:write(code)
  file:close()
  local pipe = assert(io.popen(string.format(
    "LUA_CPATH='%s' '%s' '%s' 2>&1; echo \"status $?\"", package.cpath, interpreter(), name)))
  local out = pipe:read("*a")
  pipe:close()
  os.remove(name)
  return out
end

return support
