-- faults.lua - fail_after: which requests fail and what is told of them; and each function of the
-- module with each of its requests refused in turn.
--
-- ZMALLOC_FAULT_COUNTS: a file to which what the loops have done is written, as a line of JSON.

local zmalloc = require "zmalloc"
local support = require "tests.lua.module.support"
local same, check, fails = support.same, support.check, support.fails

-- Each of these is one request, on each Lua: an empty table.
local kept = {}
local function ask()
  kept[1] = {}
end

-- A case whose requests are counted. No cycle of the collector is about to end, whose finalizer
-- would ask, too, and the depth of calls is there.
local function quietly(f)
  return function()
    support.settle()
    pcall(pcall, pcall, ask)
    f()
  end
end

-- A number of requests. From 5.2 on what a refusal has the collector give back, what calls
-- need, may have to be asked for again, and after an error there is an attempt at a smaller stack.
local function counted(seen, expected, what)
  local most = support.asks_again and 2 * expected + 4 or expected
  if seen < expected or seen > most then
    same(seen, expected, what)
  end
end

-- Which of so many requests in a row fail, as text. All is made before the fault is on.
local results = { false, false, false, false, false, false, false, false }
local function pattern(n, repeats, count)
  for i = 1, count do
    results[i] = pcall(ask) -- the depth is there
  end
  local fault = zmalloc.fail_after(n, repeats)
  for i = 1, count do
    results[i] = pcall(ask)
  end
  local passed, failed = fault()
  local text = ""
  for i = 1, count do
    text = text .. (results[i] and "." or "x")
  end
  return text, passed, failed
end

-- A request that fails is made again from 5.2 on, so two refusals are one error there.
local function refused(errors)
  return support.asks_again and 2 * errors or errors
end

-- ---- each function of the module ----

local function work(n)
  local t = {}
  for i = 1, n do
    t[i] = { tostring(i) .. "x" }
  end
  return #t
end

local function pass(...)
  return ...
end

local function complain()
  error({}, 0)
end

local OPTIONS = { reserve = "1 MiB" }

-- What is to be the same whenever it succeeds is returned.
local loads = {
  used = function() return zmalloc.used() > 0 end,
  total = function() return zmalloc.total() > 0 end,
  peak = function() return zmalloc.peak() > 0 end,
  reset_peak = function() return zmalloc.reset_peak() end,
  rss = function() return zmalloc.rss() > 0 end,
  collect = function() return type(zmalloc.collect()) end,
  stats = function()
    local s = zmalloc.stats()
    return s.used > 0 and tostring(s):match("^used ")
  end,
  limit = function()
    local limit = zmalloc.limit("64 MiB", OPTIONS)
    return limit, zmalloc.limit(), zmalloc.limit(nil)
  end,
  budget = function()
    local ok, n, more = zmalloc.budget("1 MiB", work, 20)
    if not ok then
      same(more, nil, "why: no cap has refused anything")
      error(n, 0)
    end
    local fine, _, why = zmalloc.budget("1 MiB", complain)
    return n, fine, why
  end,
  track = function()
    local use, n = zmalloc.track(work, 20)
    return use.count > 20, n, select("#", zmalloc.track(pass, 1, nil, 3))
  end,
  fail_after = function() -- one in another ends that one
    return type(zmalloc.fail_after(1000, 1)), zmalloc.fail_after(nil)
  end,
}

local function is_clean(err)
  return type(err) == "string" and err:find("not enough memory", 1, true) ~= nil
end

local counts

local function show(ok, a, b, c)
  return tostring(ok) .. " " .. tostring(a) .. " " .. tostring(b) .. " " .. tostring(c)
end

local function difference(name, n, repeats, what)
  counts.differences = counts.differences + 1
  error(string.format("%s, request %d, repeat %d: %s", name, n, repeats, what), 0)
end

-- Runs it with request n refused. True when the fault came.
local function run(name, n, repeats, expected)
  local f = loads[name]
  local before = zmalloc.stats()
  local fault = zmalloc.fail_after(n, repeats)
  local ok, a, b, c = pcall(f)
  zmalloc.fail_after()
  local _, failed = fault()
  zmalloc.limit(nil)
  counts.runs, counts.faults = counts.runs + 1, counts.faults + failed
  counts.errors = counts.errors + (ok and 0 or 1)
  if not ok and not is_clean(a) then
    difference(name, n, repeats, "the error " .. tostring(a))
  elseif not ok and failed == 0 and name ~= "fail_after" then
    difference(name, n, repeats, "an error without a refusal")
  elseif ok and name ~= "fail_after" and show(ok, a, b, c) ~= expected then
    difference(name, n, repeats, show(ok, a, b, c) .. " in place of " .. expected)
  elseif repeats > 0 and failed > repeats then
    difference(name, n, repeats, failed .. " refused")
  elseif name ~= "fail_after" and zmalloc.stats().refusals - before.refusals ~= failed then
    difference(name, n, repeats, "refusals and failed differ")
  elseif zmalloc.limit() ~= nil or zmalloc.stats().limit_hit ~= before.limit_hit then
    difference(name, n, repeats, "a limit is left, or was hit")
  end
  support.agrees()
  return failed > 0
end

local function loop(name)
  counts.entries = counts.entries + 1
  for _, repeats in ipairs { 1, 2, -1 } do
    local expected, n = show(pcall(loads[name])), 0
    while run(name, n, repeats, expected) do
      n = n + 1
      check(n < 10000, name .. ": there is no end of it")
    end
    same(show(pcall(loads[name])), expected, name .. " afterwards")
  end
end

local function write_counts()
  local path = os.getenv("ZMALLOC_FAULT_COUNTS")
  local file = path and assert(io.open(path, "a"))
  if file then
    file:write(string.format('{"front": "Lua module", "with": "%s", "entries": %d, "runs": %d, ' ..
      '"faults": %d, "errors": %d, "differences": %d}\n',
      support.is_luajit and jit.version or _VERSION, counts.entries, counts.runs, counts.faults,
      counts.errors, counts.differences))
    file:close()
  end
end

return {
  { "requests fail after as many as were asked for", quietly(function()
    local first = { { 0, 1 }, { 2, 1 }, { 3, -1 }, { 0, -1 }, { 7, 1 }, { 1, 3 } }
    local errors = { "x....", "..x..", "...xx", "xxxxx", ".....", ".xxx." }
    for i, case in ipairs(first) do
      local n, times = case[1], case[2]
      if times > 1 and support.asks_again then
        break -- 5.4's attempt at a smaller stack, after the first error, is one of them
      end
      local text, passed, failed = pattern(n, times < 0 and -1 or refused(times), 5)
      same(text, errors[i], "with " .. n .. ", " .. times)
      counted(passed, select(2, text:gsub("%.", "")), "passed")
      counted(failed, refused(select(2, text:gsub("x", ""))), "failed")
    end
  end) },

  { "a single refusal is one collection where Lua asks again, else an error", quietly(function()
    local before = zmalloc.stats()
    local text, passed, failed = pattern(1, nil, 3)
    local after = zmalloc.stats()
    same(text, support.asks_again and "..." or ".x.")
    counted(passed, support.asks_again and 3 or 2, "passed")
    same(failed, 1)
    same(after.refusals - before.refusals, 1)
    same(after.limit_hit, before.limit_hit)
  end) },

  { "the counts are there while it is on and afterwards, looking is no request", quietly(function()
    local fault = zmalloc.fail_after(1000)
    ask()
    local a, b, c = fault.passed, fault.passed, fault.failed
    ask()
    local d = fault.passed
    local e, f = fault()
    same(a, 1)
    same(b, 1)
    same(c, 0)
    same(d, 2)
    same(e, 2)
    same(f, 0)
    ask()
    same(fault.passed, 2)
    same(fault.failed, 0)
    same(fault.nothing, nil)
    same(fault[1], nil)
    same(select(2, fault()), 0)
  end) },

  { "switched off by nil or by nothing, which tells the counts, too", quietly(function()
    for i = 1, 2 do
      pcall(ask)
      local fault = zmalloc.fail_after(1, -1)
      local passed, failed
      ask()
      local ok = pcall(ask)
      if i == 1 then
        passed, failed = zmalloc.fail_after()
      else
        passed, failed = zmalloc.fail_after(nil)
      end
      same(ok, false)
      same(passed, 1)
      counted(failed, refused(1))
      ask()
      same(fault.passed, 1)
      same(fault.failed, failed)
    end
  end) },

  { "a later one takes the place of one that is on", quietly(function()
    local first = zmalloc.fail_after(5, -1)
    ask()
    local a = first.passed
    local second = zmalloc.fail_after(1, -1)
    local b = first.passed
    first() -- is over already
    ask()
    local ok = pcall(ask)
    local passed, failed = second()
    same(a, 1)
    check(b >= 2, "what making the second took was the first one's")
    same(first.passed, b)
    same(ok, false)
    same(passed, 1)
    counted(failed, refused(1))
  end) },

  { "making one where all requests fail is an error, and the first stays on", quietly(function()
    local fault = zmalloc.fail_after(0, -1)
    local ok, err = pcall(zmalloc.fail_after, 3)
    local again = pcall(ask)
    local _, failed = fault()
    same(ok, false)
    same(err, "not enough memory")
    same(again, false)
    check(failed >= refused(2), failed)
  end) },

  { "it stays on when what was returned is collected", function()
    zmalloc.fail_after(100)
    collectgarbage()
    collectgarbage()
    ask()
    local passed = zmalloc.fail_after()
    check(passed >= 1, passed)
  end },

  { "a to-be-closed variable ends it", quietly(function()
    local load = loadstring or load
    local chunk = load("local z, f = ... local fault <close> = z.fail_after(0, -1) return pcall(f)")
    if support.version < 5.4 then
      same(chunk, nil)
      return
    end
    same((chunk(zmalloc, ask)), false)
    ask()
    same(zmalloc.fail_after(), 0)
  end) },

  { "a refusal on request hits no limit, and a budget does not call it one", quietly(function()
    local hit = zmalloc.stats().limit_hit
    support.with_limit("64 MiB", nil, function()
      local fault = zmalloc.fail_after(0, -1)
      local ok = pcall(ask)
      fault()
      same(ok, false)
      same(zmalloc.stats().limit_hit, hit)
    end)
    local fault
    local function inside()
      fault = zmalloc.fail_after(0, -1)
      ask()
    end
    local ok, err, why = zmalloc.budget("1 MiB", inside)
    fault()
    same(ok, false)
    same(err, "not enough memory")
    same(why, nil)
  end) },

  { "a limit is obeyed while it is on, and counts as passed", function()
    local fault = zmalloc.fail_after(1e9)
    local ok, err, why = zmalloc.budget("1 MiB", support.run_away)
    local passed, failed = fault()
    same(ok, false)
    same(err, "not enough memory")
    same(why, "limit")
    same(failed, 0)
    check(passed > 100)
  end },

  { "a wrong call names what is wrong", function()
    local n = "expected an integer from 0 on, or nil to switch it off)"
    local repeats = "expected an integer from 1 on, or -1 for all that follow)"
    local function wrong(first, second, argument, text)
      fails(function() zmalloc.fail_after(first, second) end,
        "bad argument #" .. argument .. " to 'fail_after' (" .. text)
    end
    wrong(-1, nil, 1, "n=-1 is out of range: " .. n)
    wrong(2 ^ 63, nil, 1, "n=" .. tostring(2 ^ 63) .. " is out of range: " .. n)
    wrong(1.5, nil, 1, "n=1.5 is not an integer: " .. n)
    wrong("3", nil, 1, 'n="3" has the wrong type, string: ' .. n)
    wrong(true, nil, 1, "n=true has the wrong type, boolean: " .. n)
    wrong(1, 0, 2, "repeat=0 is out of range: " .. repeats)
    wrong(1, -2, 2, "repeat=-2 is out of range: " .. repeats)
    wrong(1, "x", 2, 'repeat="x" has the wrong type, string: ' .. repeats)
    wrong(nil, 1, 2, "there is nothing to repeat when it is switched off)")
    same(zmalloc.fail_after(), zmalloc.fail_after())
  end },

  { "what stats() prints by is whole, whichever request of its making is refused", function()
    local registry, n, failed = debug.getregistry(), 0
    repeat
      registry["zmalloc.stats"] = nil
      local fault = zmalloc.fail_after(n, refused(1))
      pcall(zmalloc.stats)
      n, failed = n + 1, select(2, fault())
      check(tostring(zmalloc.stats()):match("^used "), "request " .. n - 1)
    until failed == 0
    check(n > 5)
  end },

  { "each function of the module survives each request that fails", function()
    for name, value in pairs(zmalloc) do
      check(type(value) ~= "function" or loads[name], "no load for " .. name)
    end
    counts = { entries = 0, runs = 0, faults = 0, errors = 0, differences = 0 }
    for name in pairs(loads) do
      check(zmalloc[name], "no function " .. name)
      loop(name)
    end
    write_counts()
  end },

}
