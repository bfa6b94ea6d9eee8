-- test.lua - the tests of the module, with any Lua and nothing else. From the project's folder:
--
--     LUA_CPATH="build/lua5.4/?.so" lua5.4 tests/lua/test.lua [PATTERN]
--
-- ZMALLOC_TEST_OPERATIONS: how many random operations, a million unless told.

package.path = "./?.lua;./?/init.lua;" .. package.path
local groups = require "tests.lua.module"

local pattern = arg and arg[1] or ""
local passed, failed = 0, 0
for _, group in ipairs(groups) do
  for _, case in ipairs(group.cases) do
    if case[1]:find(pattern) then
      local ok, err = pcall(groups.run, case, groups.repeats(group))
      passed, failed = passed + (ok and 1 or 0), failed + (ok and 0 or 1)
      if not ok then
        print("FAILED: " .. group.name .. ": " .. case[1] .. "\n    " .. tostring(err))
      end
    end
  end
end
print(string.format("%s: %d passed, %d failed", rawget(_G, "jit") and jit.version or _VERSION,
  passed, failed))
os.exit(failed == 0 and 0 or 1)
