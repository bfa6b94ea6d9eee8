-- budgets.lua - budget and track: what they return, how they nest, where they end.

local zmalloc = require "zmalloc"
local support = require "tests.lua.module.support"
local same, check, fails = support.same, support.check, support.fails

local KIB, MIB = 2 ^ 10, 2 ^ 20

-- Finds out what cap is in force inside of f's budget.
local function limit_inside(n)
  local _, limit = zmalloc.budget(n, zmalloc.limit)
  return limit
end

return {
  { "a budget passes arguments and results on", function()
    local function pass(...)
      return ...
    end
    local n = select("#", zmalloc.budget("1 MiB", pass, 1, nil, 3))
    local a, b, c = select(2, zmalloc.budget("1 MiB", pass, 1, nil, 3))
    same(n, 4)
    same(a, 1)
    same(b, nil)
    same(c, 3)
    same(select("#", zmalloc.budget("1 MiB", function() end)), 1)
    same((zmalloc.budget("1 MiB", function() end)), true)
  end },

  { "a budget passes very many arguments and results on", function()
    local many = {}
    for i = 1, 5000 do
      many[i] = i
    end
    local results = { zmalloc.budget("1 MiB", function(...) return ... end, support.unpack(many)) }
    same(#results, 5001)
    same(results[1], true)
    same(results[5001], 5000)
  end },

  { "a budget is measured from what is used at its start", function()
    zmalloc.collect()
    local before = zmalloc.used()
    local limit = limit_inside("2 MiB")
    check(limit >= before + 2 * MIB and limit < before + 2 * MIB + 4000, limit - before)
    same(zmalloc.limit(), nil)
  end },

  { "a budget has a reserve beyond it, as a limit has", function()
    local ok, s = zmalloc.budget("1 MiB", zmalloc.stats)
    check(ok)
    same(s.reserve, 64 * KIB)
    same(select(2, zmalloc.budget("10 KiB", zmalloc.stats)).reserve, 4 * KIB)
  end },

  { "a budget stops a runaway, says so, and is gone", function()
    local ok, err, why = zmalloc.budget("2 MiB", support.run_away)
    same(ok, false)
    same(err, "not enough memory")
    same(why, "limit")
    same(zmalloc.limit(), nil)
    check(#("x"):rep(8 * MIB) == 8 * MIB)
    zmalloc.collect()
  end },

  { "a budget stops large strings, buffers and deep recursion, too", function()
    local function recurse(n)
      return 1 + recurse(n + 1)
    end
    for name, f in pairs {
      rep = function() return ("x"):rep(16 * MIB) end,
      concat = function()
        local parts = {}
        for i = 1, 100 do
          parts[i] = ("x"):rep(20000)
        end
        return table.concat(parts)
      end,
      gsub = function() return (("x"):rep(500000):gsub("x", "0123456789")) end,
      recursion = function() return recurse(1) end,
      coroutines = function()
        local all = {}
        for i = 1, 1e6 do
          all[i] = coroutine.create(function() return i end)
        end
      end,
    } do
      local ok, err, why = zmalloc.budget(name == "recursion" and 64 * KIB or MIB, f)
      same(ok, false, name)
      check(tostring(err):find("not enough memory", 1, true), name .. ": " .. tostring(err))
      same(why, "limit", name)
      zmalloc.collect()
    end
  end },

  { "an error of f's own is passed on as it is, and is not the limit's", function()
    local object = {}
    local ok, err, why = zmalloc.budget("1 MiB", error, object)
    same(ok, false)
    same(err, object)
    same(why, nil)
    same(select("#", zmalloc.budget("1 MiB", error, object)), 3)
    same((zmalloc.budget("1 MiB", error)), false)
    same(select(3, zmalloc.budget("1 MiB", error, "not enough memory")), nil)
  end },

  { "the limit's error is known when f has passed it on in its own words", function()
    local _, err, why = zmalloc.budget("1 MiB", function()
      local ok, cause = pcall(support.run_away)
      zmalloc.collect()
      error("while reading: " .. tostring(cause), ok and 1 or 0)
    end)
    same(err, "while reading: not enough memory")
    same(why, "limit")
  end },

  { "a refusal that f has swallowed is not the reason of another error", function()
    local ok, err, why = zmalloc.budget("1 MiB", function()
      pcall(support.run_away)
      zmalloc.collect()
      error("another", 0)
    end)
    same(ok, false)
    same(err, "another")
    same(why, nil)
  end },

  { "budgets nest, and the tightest is in force", function()
    local before = zmalloc.used()
    local ok, outer, inner, wide, after = zmalloc.budget("4 MiB", function()
      return zmalloc.limit(), limit_inside("1 MiB"), limit_inside("64 MiB"), zmalloc.limit()
    end)
    check(ok)
    check(outer >= before + 4 * MIB and outer < before + 5 * MIB)
    check(inner < outer)
    same(wide, outer)
    same(after, outer)
    same(zmalloc.limit(), nil)
  end },

  { "an inner budget's end leaves the outer one's room", function()
    local ok, inner, err = zmalloc.budget("8 MiB", function()
      local fine, why = select(1, zmalloc.budget("1 MiB", support.run_away)),
        select(3, zmalloc.budget("1 MiB", support.run_away))
      zmalloc.collect()
      return fine, why, #("x"):rep(MIB)
    end)
    same(ok, true)
    same(inner, false)
    same(err, "limit")
  end },

  { "budgets nest until Lua has had enough, and all are gone then", function()
    local function nest(n)
      local ok, result = zmalloc.budget("64 MiB", nest, n + 1)
      return ok and result or n
    end
    local deepest = nest(1)
    check(deepest > 50, "deepest: " .. tostring(deepest))
    same(zmalloc.limit(), nil)
  end },

  { "a budget and a limit: the smaller is in force", function()
    local limit = math.floor(zmalloc.used() + 2 * MIB)
    support.with_limit(limit, nil, function()
      same(limit_inside("32 MiB"), limit)
      check(limit_inside("256 KiB") < limit)
      same(zmalloc.limit(), limit)
    end)
  end },

  { "a limit that f sets in its budget stays, below the budget's and after it", function()
    local ok, inside = zmalloc.budget("1 MiB", function() return zmalloc.limit("1 GiB") end)
    check(ok and inside < 2 ^ 30)
    same(zmalloc.limit(), 2 ^ 30)
    zmalloc.limit(nil)
    same(zmalloc.limit(), nil)
  end },

  { "a budget works in a coroutine, and around one", function()
    local made = coroutine.wrap(function()
      local ok, err, why = zmalloc.budget("1 MiB", support.run_away)
      coroutine.yield(ok, err, why)
      return zmalloc.limit()
    end)
    local ok, err, why = made()
    same(ok, false)
    same(err, "not enough memory")
    same(why, "limit")
    same(made(), nil)
    local fine, sum = zmalloc.budget("1 MiB", function()
      local total = 0
      for n in coroutine.wrap(function()
        for i = 1, 10 do
          coroutine.yield(i)
        end
      end) do
        total = total + n
      end
      return total
    end)
    check(fine)
    same(sum, 55)
  end },

  { "a coroutine that meets the cap is an error of its resume, and the budget goes on", function()
    local ok, fine, err = zmalloc.budget("2 MiB", function()
      local resumed, message = coroutine.resume(coroutine.create(support.run_away))
      zmalloc.collect()
      return resumed, message
    end)
    same(ok, true)
    same(fine, false)
    same(err, "not enough memory")
  end },

  { "f cannot yield out of its budget", function()
    local co = coroutine.wrap(function()
      return zmalloc.budget("1 MiB", coroutine.yield, 1)
    end)
    local ok, err, why = co()
    same(ok, false)
    check(tostring(err):find("attempt to yield across", 1, true), err)
    same(why, nil)
    same(zmalloc.limit(), nil)
  end },

  { "an object that can be called is a function", function()
    local object = setmetatable({}, { __call = function(_, n) return n + 1 end })
    same(select(2, zmalloc.budget("1 MiB", object, 4)), 5)
    same(select(2, zmalloc.track(object, 4)), 5)
  end },

  { "wrong arguments of budget and track are errors that name them", function()
    local expected = 'expected an integer of bytes, or text such as "64 MiB", "1.5g", "300 kB"' ..
                     ' (1024-based) or "80%")'
    fails(function() zmalloc.budget() end,
      "bad argument #1 to 'budget' (n=<no value> has the wrong type, no value: " .. expected)
    fails(function() zmalloc.budget(1024) end,
      "bad argument #2 to 'budget' (f=<no value> cannot be called: expected a function)")
    fails(function() zmalloc.budget(1024, "print") end,
      "bad argument #2 to 'budget' (f=\"print\" cannot be called: expected a function)")
    fails(function() zmalloc.budget("1 MB ", print) end,
      "bad argument #1 to 'budget' (n=\"1 MB \" is not a size: " .. expected)
    fails(function() zmalloc.track(nil) end,
      "bad argument #1 to 'track' (f=nil cannot be called: expected a function)")
    same(zmalloc.limit(), nil)
  end },

  { "track tells what stays, the peak and the blocks", function()
    zmalloc.collect()
    local use, kept, nothing, three = zmalloc.track(function()
      local text = ("x"):rep(MIB)
      return { text }, nil, 3
    end)
    check(use.net >= MIB and use.net < 4 * MIB, use.net)
    check(use.peak >= use.net)
    check(use.count >= 2 and use.count < 100, use.count)
    same(#kept[1], MIB)
    same(nothing, nil)
    same(three, 3)
  end },

  { "track tells less than nothing where something is given back", function()
    local text = { ("x"):rep(MIB) }
    zmalloc.collect()
    local use = zmalloc.track(function()
      text[1] = nil
      zmalloc.collect()
    end)
    check(use.net < -MIB / 2, use.net)
    check(use.peak >= 0)
  end },

  { "track sees the peak of what is gone, to the byte of a string", function()
    support.begin()
    local use = zmalloc.track(function()
      local length = #("x"):rep(2 * MIB)
      support.settle()
      return length
    end)
    check(use.peak >= 2 * MIB, use.peak)
    check(use.net < 10000, use.net)
  end },

  { "tracks nest and leave each other and the peak alone", function()
    support.begin()
    local before = zmalloc.peak()
    local outer, inner = zmalloc.track(function()
      local length = #("x"):rep(2 * MIB)
      zmalloc.collect()
      return (zmalloc.track(function() return length and #("y"):rep(MIB / 4) end))
    end)
    check(outer.peak >= 2 * MIB)
    check(inner.peak >= MIB / 4 and inner.peak < outer.peak)
    check(zmalloc.peak() - before >= 2 * MIB)
  end },

  { "track of nothing is nothing", function()
    local function nothing() end
    zmalloc.track(nothing)
    local use = zmalloc.track(nothing)
    same(use.net, 0)
    same(use.peak, 0)
    same(use.count, 0)
  end },

  { "errors pass through track as they are", function()
    local object = {}
    local ok, err = pcall(zmalloc.track, error, object)
    same(ok, false)
    same(err, object)
    local _, message, why = zmalloc.budget("1 MiB", zmalloc.track, support.run_away)
    same(message, "not enough memory")
    same(why, "limit")
  end },

  { "a thousand budgets cost no collections", function()
    local kept = {}
    for i = 1, 20000 do
      kept[i] = { i }
    end
    zmalloc.collect()
    local start = os.clock()
    for _ = 1, 1000 do
      zmalloc.budget("1 MiB", function() return { {} } end)
    end
    local budgets = os.clock() - start
    start = os.clock()
    for _ = 1, 20 do
      collectgarbage()
    end
    local collections = (os.clock() - start) * 50
    check(budgets < collections / 4,
      string.format("1000 budgets: %.3f s, 1000 collections: %.3f s", budgets, collections))
    check(#kept == 20000)
  end },
}
