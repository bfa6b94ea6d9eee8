-- figures.lua - used, total, peak, rss, stats, collect, version.

local zmalloc = require "zmalloc"
local support = require "tests.lua.module.support"
local same, check, fails = support.same, support.check, support.fails

local MIB = 2 ^ 20

return {
  { "used is what the collector counts, to the byte", function()
    support.agrees()
    local kept = {}
    for i = 1, 1000 do
      kept[i] = { tostring(i) .. "!" }
    end
    support.agrees()
  end },

  { "used grows by the size of a string that is made", function()
    -- A collection may fit Lua's own stack, and the first big buffer of Lua 5.3 leaves a metatable.
    local slack = 500
    local before = support.begin()
    local text = ("x"):rep(3 * MIB)
    local grown, least = zmalloc.used() - before, #text - slack
    support.agrees()
    check(grown >= least, "grown by " .. grown)
    text = nil
    local back = grown - (support.settle() - before)
    support.agrees()
    check(text == nil and back >= least and back <= grown + slack, "came back: " .. back)
  end },

  { "figures are integers where Lua has them", function()
    for _, name in ipairs { "used", "total", "peak", "rss" } do
      local n = zmalloc[name]()
      same(n % 1, 0, name)
      same(math.type and math.type(n) or "integer", "integer", name)
    end
  end },

  { "total is what this state holds and what the others do", function()
    check(zmalloc.total() >= zmalloc.used())
    local before = zmalloc.total() - zmalloc.used()
    local text = ("x"):rep(MIB)
    same(zmalloc.total() - zmalloc.used(), before)
    check(#text == MIB)
  end },

  { "peak keeps the maximum until it is reset", function()
    local before = support.begin()
    check(zmalloc.peak() >= before and zmalloc.peak() < before + 1000)
    local length = #("x"):rep(5 * MIB)
    support.settle()
    local rise = zmalloc.peak() - before
    check(rise >= length and rise < 4 * length, "a rise of " .. rise) -- with the buffer's pieces
    check(zmalloc.used() < before + 2000)
    zmalloc.reset_peak()
    check(zmalloc.peak() - zmalloc.used() < 1000)
  end },

  { "rss is the process's resident memory", function()
    check(zmalloc.rss() > 100000)
  end },

  { "collect tells how much came back", function()
    support.begin()
    local live = { {} }
    for i = 1, 10000 do
      live[1][i] = { i }
    end
    local before = zmalloc.used()
    live[1] = nil
    local back = zmalloc.collect()
    check(back > 10000 * 40, "came back: " .. back)
    check(math.abs(before - zmalloc.used() - back) < 500)
    check(math.abs(zmalloc.collect()) < 2000)
  end },

  { "collect frees what has a finalizer, too", function()
    local finalized = 0
    local function make()
      if support.version == 5.1 then
        local proxy = newproxy(true)
        getmetatable(proxy).__gc = function()
          finalized = finalized + 1
        end
      else
        setmetatable({ ("y"):rep(MIB) }, { __gc = function()
          finalized = finalized + 1
        end })
      end
    end
    zmalloc.collect()
    local before = zmalloc.used()
    make()
    zmalloc.collect()
    same(finalized, 1)
    check(zmalloc.used() - before < 2000, zmalloc.used() - before)
  end },

  { "stats has every figure, and they fit together", function()
    local s = zmalloc.stats()
    for _, name in ipairs { "used", "total", "peak", "reserve", "allocations", "frees", "refusals",
                            "collections", "overhead_refusals", "rss", "fragmentation" } do
      same(type(s[name]), "number", name)
    end
    same(type(s.limit_hit), "boolean")
    same(s.sealed, false)
    same(s.limit, nil)
    same(s.hard_limit, nil)
    same(s.reserve, 0)
    check(s.core:match("^zmalloc %d+%.%d+%.%d+"), s.core)
    check(s.peak >= s.used and s.total >= s.used)
    same(s.fragmentation, s.rss / s.total)
  end },

  { "stats counts blocks, and by kind where Lua tells it", function()
    local before = zmalloc.stats()
    local kept = {}
    for i = 1, 500 do
      kept[i] = {}
    end
    local after = zmalloc.stats()
    check(after.allocations - before.allocations >= 500)
    if not support.asks_again then
      same(after.kinds, nil)
      return
    end
    local tables = after.kinds.tables - before.kinds.tables
    check(tables >= 501 and tables < 520, "tables made: " .. tables)
    for i = 1, 100 do
      kept[i] = coroutine.create(function() return kept[i] end)
    end
    local last = zmalloc.stats()
    check(last.kinds.threads - after.kinds.threads == 100)
    check(last.kinds.functions - after.kinds.functions >= 100)
    same(type(last.kinds.strings), "number")
    same(type(last.kinds.userdata), "number")
  end },

  { "stats under a limit tells the marks, and what was refused", function()
    support.with_limit("32 MiB", { reserve = "1 MiB" }, function()
      local before = zmalloc.stats()
      same(before.limit, 32 * MIB)
      same(before.hard_limit, 33 * MIB)
      same(before.reserve, MIB)
      check(not pcall(string.rep, "x", 64 * MIB))
      local after = zmalloc.stats()
      same(after.limit_hit, true)
      check(after.refusals > before.refusals)
      check(after.last_refused >= 8 * MIB, after.last_refused)
    end)
  end },

  { "stats prints as a table", function()
    support.with_limit("1.5 GiB", nil, function()
      local text = tostring(zmalloc.stats())
      check(text:match("^used +[%d,]+ B  %([%d.]+ [KM]iB%)\n"), text)
      check(text:find("\nlimit               1,610,612,736 B  (1.5 GiB)\n", 1, true), text)
      check(text:find("\nsealed              no\n", 1, true), text)
      check(text:find("\ncore                zmalloc ", 1, true), text)
      same(text:find("\nthreads ", 1, true) ~= nil, support.asks_again)
    end)
    check(tostring(zmalloc.stats()):find("\nlimit               none\n", 1, true))
  end },

  { "a table of stats whose fields were changed still prints", function()
    local s = zmalloc.stats()
    s.used, s.core, s.kinds, s.rss, s.limit = 2 ^ 70, {}, 7, "1", -1e6
    check(tostring(s):find("\nlimit               -1,000,000 B\n", 1, true), tostring(s))
    fails(function() getmetatable(s).__tostring(1) end,
      "bad argument #1 to '__tostring' (table expected, got number)")
  end },

  { "the version is told twice", function()
    check(zmalloc.version:match("^%d+%.%d+%.%d+$"))
    same(zmalloc._VERSION, "zmalloc " .. zmalloc.version)
  end },

  { "the module is a table that sets no globals", function()
    same(package.loaded.zmalloc, zmalloc)
    same(rawget(_G, "zmalloc"), nil)
  end },
}
