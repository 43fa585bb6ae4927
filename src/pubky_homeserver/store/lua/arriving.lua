-- Accounts that open here, for homeservers that follow: one without a write is in no feed.

local OPENED = 1000  -- how many of the newest are known

-- Note that an account opened.
local function arrive(shard, opened, wake, pubky)
  redis.call('ZADD', opened, redis.call('HINCRBY', shard, 'opened', 1), pubky)
  redis.call('ZREMRANGEBYRANK', opened, 0, -OPENED - 1)
  redis.call('PUBLISH', wake, '')
end
