-- seals.lua - what a script can try against a sealed limit. Each in a process of its own, for a
-- seal stays.

local support = require "tests.lua.module.support"
local check = support.check

-- In each: a sealed limit of 4 MiB, the attack, and then a look if it holds.
local BEFORE = [[
if jit then jit.off() end -- see init.lua
local zmalloc = require "zmalloc"
local LIMIT = 4 * 1024 * 1024
assert(zmalloc.limit(LIMIT, { seal = true, reserve = 0 }) == LIMIT)
local function holds()
  local now = package.loaded.zmalloc and zmalloc or require "zmalloc"
  assert(now.limit() == LIMIT, "the limit is " .. tostring(now.limit()))
  assert(now.stats().sealed)
  assert(not pcall(now.limit, nil))
  assert(not pcall(now.limit, LIMIT + 1))
  assert(not pcall(now.limit, LIMIT, { reserve = 1 }))
  assert(not pcall(string.rep, "x", 2 * LIMIT))
  collectgarbage() -- the reserve is 0, and Lua 5.1 does not collect by itself
  local _, err = pcall(function()
    local live = {}
    for i = 1, 1e7 do live[i] = { i } end
  end)
  collectgarbage()
  assert(err == "not enough memory", err)
  assert(now.peak() <= LIMIT, "the peak is " .. now.peak())
end
]]
local AFTER = [[
holds()
io.write("it holds\n")
]]

local function attack(code)
  return function()
    local out = support.child(BEFORE .. code .. AFTER)
    check(out == "it holds\nstatus 0\n", out)
  end
end

return {
  { "a seal: no attack at all", attack "" },

  { "a seal: errors say what is sealed", attack [[
    local function text(...)
      return (select(2, pcall(...)):gsub("^[^:]+:%d+: ", ""):gsub("'[%w.?]+'", "'limit'"))
    end
    local seen = text(zmalloc.limit, nil)
    assert(seen == "bad argument #1 to 'limit' (nil would lift the sealed limit of 4194304 bytes" ..
      " (4.0 MiB), which stays until the state is closed)", seen)
    seen = text(zmalloc.limit, "5 MiB")
    assert(seen == "bad argument #1 to 'limit' (n of 5242880 bytes (5.0 MiB) is above the sealed" ..
      " limit of 4194304 bytes (4.0 MiB), which stays until the state is closed)", seen)
    seen = text(zmalloc.limit, LIMIT, { reserve = "1 MiB" })
    assert(seen == "bad argument #2 to 'limit' (n + reserve of 5242880 bytes (5.0 MiB) is above" ..
      " the sealed hard limit of 4194304 bytes (4.0 MiB), which stays until the state is closed)",
      seen)
  ]] },

  { "a seal: it can be lowered", attack [[
    LIMIT = 3 * 1024 * 1024
    assert(zmalloc.limit(LIMIT, { reserve = 0 }) == LIMIT)
  ]] },

  { "a seal: a wider budget has no effect", attack [[
    assert(select(2, zmalloc.budget("1 GiB", zmalloc.limit)) == LIMIT)
    local ok, err, why = zmalloc.budget("1 GiB", string.rep, "x", 8e6)
    assert(not ok and why == "limit", err)
  ]] },

  { "a seal: everything in the registry is taken out, and its finalizers called", attack [[
    local registry = debug.getregistry()
    local finalizers = {}
    for key, value in pairs(registry) do
      local metatable = type(value) == "userdata" and debug.getmetatable(value)
      if metatable and metatable.__gc and not tostring(value):find("^file") then
        finalizers[value] = metatable.__gc -- LuaJIT's guard; 5.1's handles of libraries
      end
      for _, inner in pairs(type(key) == "userdata" and type(value) == "table" and value or {}) do
        if type(inner) == "table" and rawget(inner, "__gc") then
          finalizers[inner] = inner.__gc -- what paces the collector
        end
      end
    end
    local called = 0
    for value, gc in pairs(finalizers) do
      called = called + 1
      pcall(gc, value)
      pcall(gc)
      pcall(gc, "x", {})
    end
    assert(called > 0)
    for key, value in pairs(registry) do
      local ours = false
      for _, inner in pairs(type(key) == "userdata" and type(value) == "table" and value or {}) do
        ours = ours or type(inner) == "table" and rawget(inner, "__gc")
      end
      if ours then -- not Lua 5.3's list of libraries, which it trusts
        for inner in pairs(value) do
          value[inner] = "nonsense"
        end
        registry[key] = nil
      end
    end
  ]] },

  { "a seal: what is in the registry is replaced by other things", attack [[
    local registry, ours = debug.getregistry(), nil
    for key, value in pairs(registry) do
      if type(key) == "userdata" and type(value) == "table" and type(value[1]) == "number" then
        ours = key
      end
    end
    assert(ours)
    registry[ours] = io.stdout
    zmalloc.limit(LIMIT, { reserve = 0 })
    zmalloc.budget(1000, function() end)
    registry[ours] = { {}, "x", print, -1, 0 / 0, 1e300 }
    zmalloc.limit(LIMIT, { reserve = 0 })
    zmalloc.budget(1000, function() end)
    collectgarbage()
  ]] },

  { "a seal: upvalues, metatables and environments of the functions", attack [[
    for _, f in pairs(zmalloc) do
      if type(f) == "function" then
        for i = 1, 5 do
          assert(debug.getupvalue(f, i) == nil)
          debug.setupvalue(f, i, 1e9)
        end
        pcall(debug.setmetatable, f, { __index = {} })
        if debug.setfenv then
          pcall(debug.setfenv, f, {})
        end
      end
    end
    debug.setmetatable(print, nil)
  ]] },

  { "a seal: finalizers", attack [[
    local tried = 0
    local function lift()
      tried = tried + 1
      assert(not pcall(zmalloc.limit, nil))
      assert(not pcall(zmalloc.limit, "1 GiB"))
    end
    if _VERSION == "Lua 5.1" then
      getmetatable(newproxy(true)).__gc = lift
    else
      setmetatable({}, { __gc = lift })
    end
    collectgarbage()
    collectgarbage()
    assert(tried == 1)
  ]] },

  { "a seal: the module is loaded again", attack [[
    package.loaded.zmalloc = nil
    zmalloc = require "zmalloc"
    assert(not pcall(zmalloc.limit, nil))
  ]] },

  { "a seal: a second copy of the library in the state", attack [[
    local path = assert(package.searchpath and package.searchpath("zmalloc", package.cpath) or
                        package.cpath:match("[^;]+"):gsub("%?", "zmalloc"))
    local name = os.tmpname()
    local from, to = assert(io.open(path, "rb")), assert(io.open(name, "wb"))
    to:write(from:read(300000) or "")
    while true do
      local part = from:read(300000)
      if not part then break end
      to:write(part)
      part = nil
      collectgarbage()
    end
    from:close()
    to:close()
    local second = assert(package.loadlib(name, "luaopen_zmalloc"))()
    os.remove(name)
    assert(second ~= zmalloc and second.limit ~= zmalloc.limit)
    assert(second.limit() == LIMIT and second.used() > 0 and second.total() == zmalloc.total())
    assert(not pcall(second.limit, nil))
    assert(select(2, second.budget("1 GiB", second.limit)) == LIMIT)
    second = nil
  ]] },

  { "a seal: coroutines and hooks", attack [[
    coroutine.wrap(function()
      assert(not pcall(zmalloc.limit, nil))
      coroutine.yield()
    end)()
    debug.sethook(function() pcall(zmalloc.limit, nil) end, "l")
    local n = 0
    for i = 1, 100 do
      n = n + i
    end
    debug.sethook()
  ]] },

  { "a seal: the state's end, where finalizers run for the last time", function()
    local out = support.child(BEFORE .. [[
      -- Lua 5.1 and LuaJIT leave what is made while the state closes without a finalizer
      local function last()
        local lifted, large = pcall(zmalloc.limit, nil), pcall(string.rep, "x", 3 * LIMIT)
        local peak = zmalloc.peak()
        io.write(lifted and "lifted" or "not lifted", " ", large and "large" or "not large", " ",
                 peak <= LIMIT and "below" or peak, "\n")
      end
      if _VERSION == "Lua 5.1" then
        KEPT = newproxy(true)
        getmetatable(KEPT).__gc = last
      else
        KEPT = setmetatable({}, { __gc = last })
      end
      os.exit(0, true)
    ]])
    if support.version == 5.1 and not support.is_luajit then
      check(out == "status 0\n", out) -- its os.exit() does not close the state
    else
      check(out == "not lifted not large below\nstatus 0\n", out)
    end
  end },

  { "a seal: the state's end, by leaving the script", function()
    local out = support.child(BEFORE .. [[
      local function last()
        io.write(pcall(zmalloc.limit, nil) and "lifted\n" or "not lifted\n")
      end
      if _VERSION == "Lua 5.1" then
        KEPT = newproxy(true)
        getmetatable(KEPT).__gc = last
      else
        KEPT = setmetatable({}, { __gc = last })
      end
    ]])
    check(out == "not lifted\nstatus 0\n", out)
  end },
}
