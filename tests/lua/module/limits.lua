-- limits.lua - limit: what it caps, what it returns, its options.

local zmalloc = require "zmalloc"
local support = require "tests.lua.module.support"
local same, check, fails = support.same, support.check, support.fails
local with_limit = support.with_limit

local KIB, MIB = 2 ^ 10, 2 ^ 20

return {
  { "without a limit there is none", function()
    same(zmalloc.limit(), nil)
    same(select("#", zmalloc.limit()), 1)
  end },

  { "a limit is told when it is set, and when it is asked for", function()
    same(zmalloc.limit("48 MiB"), 48 * MIB)
    same(zmalloc.limit(), 48 * MIB)
    same(zmalloc.limit(40000000), 40000000)
    same(zmalloc.limit(), 40000000)
    same(zmalloc.limit(nil), nil)
    same(zmalloc.limit(), nil)
  end },

  { "sizes are read as everywhere", function()
    for text, size in pairs { ["64mb"] = 64 * MIB, ["65536k"] = 64 * MIB, ["1.5 G"] = 1536 * MIB,
                              ["100000000"] = 1e8, ["0.25T"] = 2 ^ 38 } do
      same(with_limit(text, nil, zmalloc.limit), size, text)
    end
    check(with_limit("50%", nil, zmalloc.limit) > 16 * MIB)
    same(with_limit(2 ^ 30, nil, zmalloc.limit), 2 ^ 30)
  end },

  { "a limit stops a runaway with an error that can be caught", function()
    support.begin()
    with_limit("24 MiB", nil, function()
      local ok, err = pcall(support.run_away)
      collectgarbage()
      same(ok, false)
      same(err, "not enough memory")
      local s = zmalloc.stats()
      check(s.peak <= s.hard_limit, "the peak is " .. s.peak)
      check(s.limit_hit)
    end)
  end },

  { "with no reserve use never passes the limit", function()
    support.begin()
    with_limit("24 MiB", { reserve = 0 }, function()
      same(zmalloc.stats().reserve, 0)
      local ok = pcall(support.run_away)
      collectgarbage()
      check(not ok)
      check(zmalloc.peak() <= 24 * MIB)
      check(zmalloc.peak() > 12 * MIB, "it could have had more than " .. zmalloc.peak())
    end)
  end },

  { "the reserve is a sixteenth, between 4 KiB and 1 MiB, unless told", function()
    local function reserve_of(n, options)
      return with_limit(n, options, function() return zmalloc.stats().reserve end)
    end
    same(reserve_of("1 GiB"), MIB)
    same(reserve_of(8 * MIB), 512 * KIB)
    same(reserve_of(8 * MIB, { reserve = "64 KiB" }), 64 * KIB)
    same(reserve_of(8 * MIB, { reserve = 3 }), 3)
    same(reserve_of(8 * MIB, { seal = false }), 512 * KIB)
    same(reserve_of(8 * MIB, {}), 512 * KIB)
  end },

  { "a handler has the reserve for what it does about a refusal", function()
    with_limit(math.floor(zmalloc.used() + MIB), { reserve = "256 KiB" }, function()
      local said
      local ok = pcall(function()
        local live = {}
        local fine, err = pcall(function()
          for i = 1, 1e8 do
            live[i] = { i }
          end
        end)
        said = ("handled: "):rep(1000) .. tostring(err)
        check(not fine and live)
      end)
      check(ok and #said > 9000)
    end)
  end },

  { "a limit below use frees nothing, refuses growth and lets shrink", function()
    local live = {}
    for i = 1, 20000 do
      live[i] = { i }
    end
    zmalloc.collect()
    local function deep(n)
      return n > 0 and 1 + deep(n - 1) or 0
    end
    deep(30) -- there is no room for the records of deeper calls, either, in what follows
    local before = zmalloc.used()
    with_limit(math.floor(before / 2), { reserve = 0 }, function()
      check(not pcall(string.rep, "x", 100000))
      check(zmalloc.used() >= before * 0.9)
      live = nil
      zmalloc.collect()
      check(zmalloc.used() < before / 2)
      check(pcall(string.rep, "x", 1000))
    end)
    check(live == nil)
  end },

  { "live tables and garbage within a limit go on, on every Lua", function()
    with_limit(20 * MIB, nil, function()
      local live, last = {}, nil
      for i = 1, 60000 do
        live[i] = { i, tostring(i) }
      end
      for i = 1, 1000000 do
        last = { i, { i } }
      end
      check(last and #live == 60000)
    end)
  end },

  { "garbage that has finalizers is finalized in time", function()
    if not support.asks_again then
      return
    end
    local finalized, metatable = 0, {}
    metatable.__gc = function()
      finalized = finalized + 1
    end
    local live = {}
    for i = 1, 50000 do
      live[i] = { i, i }
    end
    zmalloc.collect()
    with_limit(math.floor(zmalloc.used() * 1.5), nil, function()
      for _ = 1, 150000 do
        setmetatable({}, metatable)
      end
    end)
    check(finalized > 50000, "finalized: " .. finalized)
    zmalloc.collect()
    check(#live == 50000)
  end },

  { "pause and step multiplier are the script's own again when a limit goes", function()
    if support.version >= 5.5 then
      return
    end
    local function set(pause, multiplier)
      return collectgarbage("setpause", pause), collectgarbage("setstepmul", multiplier)
    end
    local pause, multiplier = set(180, 240)
    local live = {}
    for i = 1, 30000 do
      live[i] = { i }
    end
    zmalloc.collect()
    with_limit(math.floor(zmalloc.used() * 1.3), nil, function()
      for _ = 1, 200000 do
        live[1] = { 1 }
      end
    end)
    local after, stepmul = set(pause, multiplier)
    same(after, 180)
    same(stepmul, 240)
  end },

  { "a stopped collector stays stopped", function()
    if support.version == 5.1 then
      return -- which does not tell, or starts it with any full collection
    end
    local live = {}
    for i = 1, 20000 do
      live[i] = { i }
    end
    zmalloc.collect()
    collectgarbage("stop")
    with_limit(math.floor(zmalloc.used() + MIB / 4), nil, function() -- the next cycle is beyond it
      zmalloc.budget("64 KiB", function() return {} end)
      same(collectgarbage("isrunning"), false)
    end)
    same(collectgarbage("isrunning"), false)
    collectgarbage("restart")
    check(#live == 20000)
  end },

  { "wrong sizes are errors that name the argument and change nothing", function()
    zmalloc.limit("1 GiB")
    local expected = 'expected an integer of bytes, or text such as "64 MiB", "1.5g", "300 kB"' ..
                     ' (1024-based) or "80%")'
    local function refused(n, text)
      fails(function() zmalloc.limit(n) end, "bad argument #1 to 'limit' (" .. text)
    end
    local range = " is out of range: expected at least 1 byte, and 0 < percent <= 100)"
    refused(0, "n=0" .. range)
    refused(-5, "n=-5" .. range)
    refused("0", 'n="0"' .. range)
    refused("101%", 'n="101%"' .. range)
    refused(-1 / 0, "n=-inf" .. range)
    refused(1.5, "n=1.5 is not a size: " .. expected)
    refused("", 'n="" is not a size: ' .. expected)
    refused("64 MiBs", 'n="64 MiBs" is not a size: ' .. expected)
    refused(" 5", 'n=" 5" is not a size: ' .. expected)
    refused("5\0", 'n="5" is not a size: ' .. expected)
    refused(("9"):rep(70) .. "x", 'n="' .. ("9"):rep(60) .. '..." is not a size: ' .. expected)
    refused(1 / 0, "n=inf is too large: at most 9223372036854775807 bytes)")
    refused("9e9", 'n="9e9" is not a size: ' .. expected)
    refused("99999999T", 'n="99999999T" is too large: at most 9223372036854775807 bytes)')
    refused(true, "n=true has the wrong type, boolean: " .. expected)
    refused({}, "n=<table> has the wrong type, table: " .. expected)
    refused(print, "n=<function> has the wrong type, function: " .. expected)
    check(not pcall(zmalloc.limit, 0 / 0))
    same(zmalloc.limit(), 2 ^ 30)
    zmalloc.limit(nil)
  end },

  { "wrong options are errors that name them and change nothing", function()
    local function refused(options, text)
      fails(function() zmalloc.limit("1 GiB", options) end, "bad argument #2 to 'limit' (" .. text)
      same(zmalloc.limit(), nil)
    end
    refused({ seel = true }, "there is no option 'seel': expected seal or reserve)")
    refused({ 7 }, "there is no option 1: expected seal or reserve)")
    refused({ seal = 1 }, "seal=1 has the wrong type, number: expected true or false)")
    refused({ reserve = -1 }, "reserve=-1 is out of range: expected at least 1 byte," ..
                              " and 0 < percent <= 100)")
    refused({ reserve = "much" }, 'reserve="much" is not a size: expected an integer of bytes,' ..
            ' or text such as "64 MiB", "1.5g", "300 kB" (1024-based) or "80%")')
    refused("seal", 'options="seal" has the wrong type, string: expected a table such as' ..
            ' {seal=true, reserve="64 KiB"})')
    fails(function() zmalloc.limit(nil, { seal = true }) end,
      "bad argument #2 to 'limit' (there are no options for lifting the limit)")
  end },
}
