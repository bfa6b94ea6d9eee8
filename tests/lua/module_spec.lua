-- module_spec.lua - the cases of module/, by busted.

package.path = "./?.lua;./?/init.lua;" .. package.path
local groups = require "tests.lua.module"

for _, group in ipairs(groups) do
  describe("zmalloc: " .. group.name, function()
    for _, case in ipairs(group.cases) do
      it(case[1], function()
        groups.run(case, groups.repeats(group))
      end)
    end
  end)
end
