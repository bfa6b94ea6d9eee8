---@meta zmalloc

--- Exact memory accounting and clean memory caps for the state that runs this script.
---
--- Sizes are integers of bytes, or text: "64 MiB", "1.5g", "300 kB" (all 1024-based), or "80%" of
--- the memory that the machine or its container has.
---@class zmalloc
---@field version string "0.1.0"
---@field _VERSION string "zmalloc 0.1.0"
local zmalloc = {}

---@alias zmalloc.Size integer|number|string

---@class zmalloc.LimitOptions
---@field seal? boolean no script can raise or lift this limit any more, until the state is closed
---@field reserve? zmalloc.Size beyond the limit, for what has to be done about a refusal; 0: none

--- How many objects the state has created so far.
---@class zmalloc.Kinds
---@field strings integer
---@field tables integer
---@field functions integer
---@field userdata integer
---@field threads integer

--- Every figure at one moment, in bytes or events. `print` shows a table.
---@class zmalloc.Stats
---@field used integer what the state holds
---@field total integer what everything in the process that counts holds
---@field peak integer the most ever held, since `reset_peak`
---@field limit? integer the limit in force; nil: none
---@field hard_limit? integer limit + reserve, which use never passes
---@field reserve integer hard_limit - limit
---@field limit_hit boolean a cap of this account has refused something, until the host clears it
---@field sealed boolean
---@field allocations integer blocks taken
---@field frees integer blocks given back
---@field refusals integer growths refused
---@field last_refused? integer the size of the last of them
---@field collections integer refused requests that came again after an emergency collection
---@field overhead_refusals integer of those, refused because collections kept bringing too little
---@field rss integer resident memory of the process; 0 where the system does not tell
---@field fragmentation? number rss / total
---@field core string the copy of the library that keeps the process's register
---@field kinds? zmalloc.Kinds from Lua 5.2 on

---@class zmalloc.Use
---@field net integer bytes held more at the end than at the start; negative: less
---@field peak integer how far use rose above the start, at most
---@field count integer blocks taken

--- What the state holds now.
---@return integer bytes
---@nodiscard
function zmalloc.used() end

--- What everything in the process that counts holds: all states, Python, C.
---@return integer bytes
---@nodiscard
function zmalloc.total() end

--- The most that was ever held, to the byte, since the state began to count or since `reset_peak`.
---@return integer bytes
---@nodiscard
function zmalloc.peak() end

--- Begins the peak anew, with what is held now. The host's own peak stays.
function zmalloc.reset_peak() end

--- Every figure at this moment.
---@return zmalloc.Stats
---@nodiscard
function zmalloc.stats() end

--- Resident memory of the process; 0 where the system does not tell.
---@return integer bytes
---@nodiscard
function zmalloc.rss() end

--- Reads, sets or lifts the limit of what the state holds, and tells the limit in force.
---
--- `limit()` reads. `limit(n)` sets the script's own limit, at once and absolutely. `limit(nil)`
--- lifts it. The smallest limit there is, is in force: the host's, the script's, a budget's; a
--- larger one is legal and changes nothing. Under a seal a limit above the sealed one, or nil, is
--- an error.
---@overload fun(): integer?
---@overload fun(n: nil): integer?
---@param n zmalloc.Size
---@param options? zmalloc.LimitOptions
---@return integer in_force bytes
function zmalloc.limit(n, options) end

--- Calls `f(...)` as pcall does, and lets the state grow by n bytes at most while it runs.
---
--- Returns true and f's results; or false, the error, and "limit" if the error is that of a request
--- which a cap has refused. `f` cannot yield out of it.
---@param n zmalloc.Size
---@param f fun(...): ...
---@param ... any
---@return boolean ok
---@return any result or the error
---@return any ... further results, or "limit" or nil
function zmalloc.budget(n, f, ...) end

--- Calls `f(...)` and measures what the state takes meanwhile. Errors pass on.
---@param f fun(...): ...
---@param ... any
---@return zmalloc.Use use
---@return any ... the results of f
function zmalloc.track(f, ...) end

--- Collects all garbage, in two cycles, so that what has a finalizer goes too.
---@return integer bytes that came back; negative if finalizers kept more than was freed
function zmalloc.collect() end

---@class zmalloc.Fault
---@field passed integer requests that were let through
---@field failed integer requests that were refused
---@overload fun(): integer, integer switches it off: passed, failed

--- Has requests for memory fail on purpose: the next n succeed, the `repeat` after them fail.
---
--- What is returned switches it off when it is called, or closed, and tells how many requests have
--- passed and failed. Without n, whatever is on is switched off. From 5.2 on Lua asks again when it
--- has collected its garbage, which counts: 1 is a collection, 2 an error.
---@overload fun(n: nil): integer, integer
---@param n integer from 0 on
---@param repeat_ integer? from 1 on, or -1: all that follow; 1 unless told
---@return zmalloc.Fault fault
function zmalloc.fail_after(n, repeat_) end

return zmalloc
