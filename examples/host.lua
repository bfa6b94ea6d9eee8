-- A program that runs somebody else's script under a cap, and goes on.
--
--     lua examples/host.lua [script.lua] [budget]

local zmalloc = require "zmalloc"

local script = arg[1] or "examples/runaway.lua"
local budget = arg[2] or "8 MiB"

local function show(what, format, ...)
  print(("%-17s" .. format):format(what, ...))
end

local chunk = assert(loadfile(script))
zmalloc.collect()
zmalloc.reset_peak()
local before = zmalloc.used()
local ok, err, why = zmalloc.budget(budget, chunk)
local peak = zmalloc.peak()
if jit then jit.flush() end -- compiled code holds on to what it has seen
zmalloc.collect() -- what the script has left behind

show("script", "%s, budget %s", script, budget)
show("ended", "%s", ok and "by itself" or ("stopped by %s: %s"):format(why or "an error", err))
show("used before it", "%d bytes", before)
show("used at most", "%d bytes", peak)
show("used after it", "%d bytes", zmalloc.used())
show("the process", "goes on: 6 * 7 = %d", 6 * 7)
