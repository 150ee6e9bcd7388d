-- The checks that stand between a model's arguments and a call.
local schema = require("e2b.schema")

local person = {
  type = "object",
  properties = {
    name = { type = "string", minLength = 1 },
    age = { type = "integer", minimum = 0, maximum = 150 },
    score = { type = "number" },
    kind = { type = "string", enum = { "a", "b" } },
    tags = { type = "array", items = { type = "string" } },
    labels = { type = "object", additionalProperties = { type = "string" } },
    on = { type = "boolean" },
    any = {},
  },
  required = { "name" },
  additionalProperties = false,
}

local function fits(value)
  local copy, message = schema.check(person, value)
  assert.is_nil(message)
  return copy
end

local function wrong(expected, value)
  local copy, message = schema.check(person, value)
  assert.is_nil(copy)
  assert.equal(expected, message)
end

describe("a schema", function()
  it("lets through what fits, as a copy", function()
    local given = {
      name = "n", age = 5, score = 0.5, kind = "b", tags = { "x" }, labels = { a = "b" }, on = false, any = 1,
    }
    local copy = fits(given)
    assert.same(given, copy)
    assert.not_equal(given, copy)
    assert.not_equal(given.tags, copy.tags)
    assert.same({ name = "n", tags = {}, labels = {} }, fits({ name = "n", tags = {}, labels = {} }))
    assert.same({ name = "n", age = 5.0 }, fits({ name = "n", age = 5.0 }))
  end)

  it("takes a null for nothing, whoever's null it is", function()
    local null = require("cjson").null
    assert.same({ name = "n" }, fits({ name = "n", age = null }))
    wrong("name is missing", { name = null })
  end)

  it("names what doesn't fit", function()
    wrong("the input must be an object, got string \"x\"", "x")
    wrong("name is missing", {})
    wrong("name must not be empty", { name = "" })
    wrong("name must be a string, got number 5", { name = 5 })
    wrong("age must be an integer, got string \"5\"", { name = "n", age = "5" })
    wrong("age must be an integer, got number 1.5", { name = "n", age = 1.5 })
    wrong("age must be at least 0, got -1", { name = "n", age = -1 })
    wrong("age must be at most 150, got 151", { name = "n", age = 151 })
    wrong("kind must be one of \"a\", \"b\", got string \"c\"", { name = "n", kind = "c" })
    wrong("tags must be an array, got string \"x\"", { name = "n", tags = "x" })
    wrong("tags[2] must be a string, got number 2", { name = "n", tags = { "x", 2 } })
    wrong("tags must be an array, it has the key a", { name = "n", tags = { a = "x" } })
    wrong("labels.a must be a string, got boolean true", { name = "n", labels = { a = true } })
    wrong("labels must be an object, it has the key 1", { name = "n", labels = { "x" } })
    wrong("on must be a boolean, got number 1", { name = "n", on = 1 })
    wrong("colour is unknown; known are: age, any, kind, labels, name, on, score, tags", { name = "n", colour = "red" })
  end)

  it("names all that is missing and all that is unknown, and what was probably meant", function()
    local tool = {
      type = "object", additionalProperties = false, required = { "sandbox_id" },
      properties = { sandbox_id = { type = "string" }, timeout = { type = "integer" }, a_x = {}, b_x = {} },
    }
    for expected, value in pairs({
      ["sandbox_id is missing; id is unknown (did you mean sandbox_id?)"] = { id = "x" },
      ["timeoutMs is unknown (did you mean timeout? It is in seconds.)"] = { sandbox_id = "x", timeoutMs = 5 },
      ["timout is unknown (did you mean timeout?)"] = { sandbox_id = "x", timout = 5 },
      ["colour is unknown; x is unknown"] = { sandbox_id = "x", colour = 5, x = 1 },
    }) do
      local copy, message = schema.check(tool, value)
      assert.is_nil(copy)
      assert.equal(expected .. "; known are: a_x, b_x, sandbox_id, timeout", message)
    end
  end)

  it("knows that infinity and NaN are no integers", function()
    assert.is_nil((schema.check({ type = "integer" }, math.huge)))
    assert.is_nil((schema.check({ type = "integer" }, 0 / 0)))
  end)
end)
