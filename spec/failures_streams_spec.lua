-- Streams out of a sandbox against real breakage: a peer in a process of its own breaks them in every way, and whoever
-- reads them, in whichever way, is told what happened, in time, and without a secret in the words.
local breaking = require("spec.support.breaking")
local support = require("spec.support.support")

local serve, of_health, READERS = breaking.serve, breaking.of_health, breaking.READERS
local unpack = table.unpack or unpack -- luacheck: ignore 113 143

-- kind: what the error is; text: a part of the message; asks: whether the sandbox's health is asked for.
local BREAKAGES = {
  { "that is cut in the head of an envelope", "network", "the sandbox itself answers", true,
    [[conn:chunk("\0\0\0") conn:close()]] },
  { "that is cut in the middle of an envelope", "network", "the sandbox itself answers", true,
    [[conn:chunk(envelope('{"event":{"data":{"stdout":"YWJj"}}}'):sub(1, -9)) conn:close()]] },
  { "that is reset in the middle of an envelope", "network", "the sandbox itself answers", true,
    [[conn:chunk(envelope('{"event":{"data":{"stdout":"YWJj"}}}'):sub(1, 20)) conn:sleep(0.02) conn:reset()]] },
  { "whose body ends in the middle of an envelope", "network", "the sandbox itself answers", true,
    [[conn:chunk("\0\0\0\0\9{") conn:chunk("")]] },
  { "whose body ends without the last envelope", "network", "the sandbox itself answers", true, [[conn:chunk("")]] },
  { "whose chunks are none", "network", "the sandbox itself answers", true,
    [[conn:send("zz\r\nnonsense\r\n") conn:wait_closed()]] },
  { "with an envelope that announces 4 GB", "too_large", "larger than the limit", false,
    [[send("", 0, 4294967295) conn:wait_closed()]] },
  { "with a last envelope that announces 4 GB", "too_large", "larger than the limit", false,
    [[send("", 2, 4294967295) conn:wait_closed()]] },
  { "with a compressed envelope", "protocol", "compressed", false, [[send("{}", 1) conn:wait_closed()]] },
  { "with a compressed last envelope", "protocol", "compressed", false, [[send("{}", 3) conn:wait_closed()]] },
  { "with flags that nobody knows", "protocol", "not one of envelopes", false, [[send("{}", 128) conn:wait_closed()]] },
  { "with half of a JSON text", "protocol", "", false, [[send('{"event":{') conn:wait_closed()]] },
  { "with bytes for JSON", "protocol", "", false, [[send("\0\1\2\255\254\27[31m") conn:wait_closed()]] },
  { "with a list for an object", "protocol", "", false, [[send("[1]") conn:wait_closed()]] },
  { "with JSON that is deeper than anything", "protocol", "", false,
    [[send('{"event":' .. ("["):rep(200000) .. ("]"):rep(200000) .. "}") conn:wait_closed()]] },
  { "with an event of the wrong shape", "protocol", "", false,
    [[send('{"event":{"end":[1]},"filesystem":7}') conn:wait_closed()]] },
  { "whose last envelope is garbage", "protocol", "", false, [[send("nonsense", 2) conn:wait_closed()]] },
  { "with bytes after the last envelope", "protocol", "", false,
    [[conn:chunk(envelope("{}", 2) .. "more") conn:wait_closed()]] },
  { "that ends with an error of the server's", "server", "internal: the disk is on fire", false,
    [[finish('{"error":{"code":"internal","message":"the disk is on fire"}}')]] },
  { "that ends with an error that has no words", "busy", "unavailable", false,
    [[finish('{"error":{"code":"unavailable"}}')]] },
  { "that ends with an error that nobody knows", "server", "whatever: who knows", false,
    [[finish('{"error":{"code":"whatever","message":"who knows"}}')]] },
  { "that ends with an error of a million words", "server", "internal: word", false,
    [[finish('{"error":{"code":"internal","message":"' .. ("word\\n\\u001b[2J"):rep(100000) .. '"}}')]] },
  { "that ends with an error that names the token and the key", "authentication", "no: ", false,
    [[finish('{"error":{"code":"unauthenticated","message":"no: ' .. request.headers["x-access-token"]
      .. ' e2b_5ec4e7c0ffee5ec4e7c0ffee5ec4e7c0ffee1234"}}')]] },
}


breaking.each_mode(function(it_)
  describe("a stream", function()
    for _, breakage in ipairs(BREAKAGES) do
      local name, kind, text, asks, source = unpack(breakage)
      it_(name, function(t)
        local server = serve(t, "broken = function() " .. source .. " end")
        local sandbox = server.sandbox()
        for i, reader in ipairs(READERS) do
          local err = t:takes_between(0, 1, function()
            local ok, message, err = reader.read(sandbox)
            local checked = t:fails({ kind = kind, sandbox_id = "i1" }, ok, message, err)
            return checked
          end)
          assert(err.message:find(text, 1, true), reader.name .. ": " .. err.message)
          assert(asks or not err.message:find("itself answers", 1, true), err.message)
          assert(of_health(server) == (asks and i or 0), reader.name .. " asked " .. of_health(server) .. " times")
          -- Who lost a process can find it again.
          assert(reader.watch or err.pid == 7, reader.name .. ": the pid is missing")
          assert(#assert(sandbox.commands:list()) == 0)
        end
      end)
    end

    it_("that says nothing of its end after the process had one is not waited for", function(t)
      local server = serve(t, [[
        broken = function()
          output("stdout", "all of it")
          ended(3)
          conn:wait_closed()
        end
      ]])
      local result = t:takes_between(0, 1 + support.tolerance, function()
        return server.sandbox().commands:run("x")
      end)
      assert(result.exit_code == 3 and result.stdout == "all of it")
      assert(of_health(server) == 0)
    end)

    it_("that is no stream at all", function(t)
      local answers = {
        { "conn:respond(200, '<html>log in first</html>', { ['Content-Type'] = 'text/html' })", "protocol" },
        { "conn:respond(200, '{\"pid\":7}')", "protocol" },
        { "conn:respond(302, '', { Location = 'http://127.0.0.1:1/' })", "protocol" },
        { "conn:respond(502, '{\"message\":\"The sandbox was not found\",\"code\":502}')", "sandbox_gone" },
        { "conn:respond(502, '<html>bad gateway</html>', { ['Content-Type'] = 'text/html' })", "network" },
        { "conn:respond(401, '{\"code\":401,\"message\":\"unauthorized access\"}')", "authentication" },
        { "conn:send('\\0\\1\\2\\3\\r\\n\\r\\n') conn:close()", "protocol" },
      }
      for _, one in ipairs(answers) do
        local server = serve(t, "on.Start = function() " .. one[1] .. " end "
          .. "on.Connect, on.WatchDir = on.Start, on.Start")
        local sandbox = server.sandbox()
        for _, reader in ipairs(READERS) do
          local ok, message, err = reader.read(sandbox)
          t:fails({ kind = one[2], sandbox_id = "i1" }, ok, message, err)
        end
      end
    end)
  end)
end)
