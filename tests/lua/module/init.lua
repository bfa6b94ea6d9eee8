-- init.lua - all cases of the module: groups of { name, function }. test.lua runs them with nothing
-- but a Lua, module_spec.lua hands them to busted.

local support = require "tests.lua.module.support"

local groups = {}
for _, name in ipairs { "figures", "limits", "budgets", "exact", "seals", "faults" } do
  groups[#groups + 1] = { name = name, cases = require("tests.lua.module." .. name) }
end

-- How far use may be above where it was: Lua's own tables and stack grow and shrink by their own
-- rules, and the pacer has the stack grow by 276 slots.
local SLACK = 8192

-- LuaJIT 2.1's beta can crash when an error comes out of compiled code: of memory, or a
-- finalizer's.
if support.is_luajit then
  jit.off()
  jit.flush()
end

-- Runs a case as a test: no cap may be left, and use is back where it was. That a case has
-- been run before pays for Lua's own tables and caches.
function groups.run(case, repeats)
  local zmalloc = require "zmalloc"
  case[2]()
  if repeats then
    local before = support.settle()
    case[2]()
    local left = support.settle() - before
    support.check(left <= SLACK, "use is " .. left .. " bytes above where it was")
  end
  support.same(zmalloc.limit(), nil, "the limit after the test")
end

-- The random operations take long, and a child process leaves nothing here.
function groups.repeats(group)
  return group.name ~= "exact" and group.name ~= "seals"
end

return groups
