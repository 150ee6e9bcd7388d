--- Modules that are loaded when something of theirs is first used. Parsing the whole library takes longer than a call
--- does, and most programs need little of it.

--- A stand-in for a module.
---@param name string
---@return table module
return function(name)
  return setmetatable({}, {
    __index = function(module, key)
      local loaded = require(name)
      setmetatable(module, { __index = loaded })
      return loaded[key]
    end,
  })
end
