-- exact.lua - a million random operations: at each look, what is counted is what the collector
-- counts.
--
-- Before 5.4 an error in a finalizer is an error of what made the collector run: any allocation.

local zmalloc = require "zmalloc"
local support = require "tests.lua.module.support"

local OPERATIONS = tonumber(os.getenv("ZMALLOC_TEST_OPERATIONS")) or 1000000
local SLOTS = 400
local slots = {}

-- A generator of our own, for math.random is another in each version.
local state
local function random(n)
  state = (state * 16807) % 2147483647
  return state % n + 1
end

local function keep(value)
  slots[random(SLOTS)] = value
end

-- Whoever is left when the case is over is not to fail in what comes after it.
local finalizers_fail

local function fail()
  if finalizers_fail then
    error("in a finalizer")
  end
end

local function with_failing_finalizer()
  if support.version == 5.1 then
    local proxy = newproxy(true)
    getmetatable(proxy).__gc = fail
    return proxy
  end
  return setmetatable({}, { __gc = fail })
end

local compile = loadstring or load

local operations = {
  function() keep({ random(100), random(100) }) end,
  function() keep({ name = "x" .. random(1000), value = random(1000) }) end,
  function() keep(nil) end,
  function() keep(("s"):rep(random(200)) .. random(1e6)) end,
  function()
    local n = random(100)
    keep(function() n = n + 1 return n end)
  end,
  function()
    local value = slots[random(SLOTS)]
    if type(value) == "function" then
      value()
    elseif type(value) == "table" then
      value[random(50)] = random(10)
    elseif type(value) == "thread" then
      coroutine.resume(value)
    end
  end,
  function()
    keep(coroutine.create(function(...)
      local kept = { ... }
      for i = 1, 5 do
        kept[i] = coroutine.yield(i)
      end
      return kept
    end))
  end,
  function()
    local parts = {}
    for i = 1, random(20) do
      parts[i] = tostring(i * random(9))
    end
    keep(table.concat(parts, ","))
  end,
  function()
    keep((("abcabc"):rep(random(20)):gsub("b", function(c)
      if random(50) == 1 then
        keep({ c })
      end
      return c .. random(10)
    end)))
  end,
  function()
    local t = {}
    for i = 1, random(30) do
      t[i] = random(1000)
    end
    table.sort(t, function(a, b) return a < b end)
    keep(t)
  end,
  function() keep(string.format("%s %d %q", "a", random(1e9), "b\n" .. random(10))) end,
  function() keep(setmetatable({}, { __mode = "k" })) end,
  function() pcall(error, { random(10) }) end,
  function()
    if random(20) == 1 then
      keep(with_failing_finalizer())
    end
  end,
  function()
    if random(100) == 1 then
      keep(("large"):rep(20000))
    end
  end,
  function()
    if random(200) == 1 then
      keep(compile("local a = ... return function() return a, " .. random(99) .. " end"))
    end
  end,
  function()
    if random(100) == 1 then
      zmalloc.budget("1 MiB", function() keep({ ("z"):rep(1000) }) end)
    end
  end,
}

local function differs() -- takes no memory
  return support.version < 5.5 and zmalloc.used() ~= collectgarbage("count") * 1024
end

local function collect_all()
  local good = 0
  while good < 3 do
    good = pcall(collectgarbage) and good + 1 or 0
  end
end

local done

local function go_on()
  while done < OPERATIONS do
    done = done + 1
    pcall(operations[random(#operations)])
    if done % 997 == 0 and differs() then
      collect_all() -- of string buffers that an error has left in the middle, on 5.3
      if differs() then
        error { used = zmalloc.used(), count = collectgarbage("count") * 1024 }
      end
    end
  end
end

-- `failing`: with errors in finalizers. At a cap they break Lua 5.2's own stack.
local function run(failing)
  finalizers_fail = failing
  state = os.time() % 1000000 + 1
  done = 0
  local seed = state
  local ok, err = pcall(go_on)
  while not ok and tostring(err):find("in a finalizer", 1, true) do
    ok, err = pcall(go_on)
  end
  finalizers_fail = false
  if type(err) == "table" then
    collect_all()
    err = "seed " .. seed .. ", operation " .. done .. ": used is " .. err.used ..
          ", the collector counts " .. err.count
  end
  return ok, err
end

local function clear()
  for i = 1, SLOTS do
    slots[i] = nil
  end
  collect_all()
end

return {
  { "a million random operations are counted to the byte", function()
    local ok, err = run(true)
    clear()
    support.check(ok, err)
    support.agrees()
  end },

  { "random operations under a limit are counted to the byte", function()
    if support.is_luajit then
      return -- LuaJIT 2.1's beta crashes in it under any allocator that refuses
    end
    local whole = OPERATIONS
    OPERATIONS = math.ceil(whole / 10)
    clear()
    zmalloc.limit(math.floor(zmalloc.used() + 200000), { reserve = 0 })
    local _, ok, err = pcall(run, support.version > 5.2)
    finalizers_fail = false
    repeat until pcall(zmalloc.limit, nil)
    OPERATIONS = whole
    clear()
    support.check(ok or type(err) == "nil" or tostring(err):find("not enough memory", 1, true), err)
    support.agrees()
  end },
}
