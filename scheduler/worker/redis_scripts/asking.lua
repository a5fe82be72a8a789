-- For those who want something done.

-- id, digest, body, agent, tenant, conversation, priority, attempts, not before; of each job
ops.put = function()
  local receipts, clashes, fresh, order = {}, {}, {}, {}
  for i = FIRST, #ARGV, 9 do
    local id, digest = ARGV[i], ARGV[i + 1]
    local there = call('HMGET', job_key(id), 'digest', 'state')
    local known = there[1] or fresh[id]
    if not known then
      fresh[id] = digest
      order[#order + 1] = i
      receipts[#receipts + 1] = 'new'
    elseif known ~= digest then
      clashes[#clashes + 1] = id
    else
      receipts[#receipts + 1] = there[2] or 'queued'
    end
  end
  if #clashes > 0 then return {'clash', clashes} end
  place_due() -- those before these
  for _, i in ipairs(order) do
    local id, conversation = ARGV[i], ARGV[i + 5]
    local seq = call('INCR', P .. 'seq')
    call('HSET', job_key(id), 'seq', seq, 'digest', ARGV[i + 1], 'body', ARGV[i + 2], 'agent', ARGV[i + 3],
      'tenant', ARGV[i + 4], 'conversation', conversation, 'priority', ARGV[i + 6], 'attempts', ARGV[i + 7],
      'enqueued_at', now, 'takes', 0, 'strikes', 0, 'token', 0, 'steps', 0)
    call('ZADD', P .. 'all', seq, id)
    if conversation ~= '' then call('HINCRBY', talk_key(conversation), 'jobs', 1) end
    queue(id, seq, math.max(now, tonumber(ARGV[i + 8]) or now), conversation)
  end
  return {'put', receipts}
end

-- state, agent, tenant, conversation (each '=' and the value, or empty), prefix, limit, after (id), from (order)
-- Looks at one page of the jobs. Gives where to go on, false at the end; then the jobs.
ops.find = function()
  local state, agent, tenant, conversation, prefix = unpack(ARGV, FIRST, FIRST + 4)
  local limit, after, from = tonumber(ARGV[FIRST + 5]), ARGV[FIRST + 6], ARGV[FIRST + 7]
  if from == '' then from = after ~= '' and call('HGET', job_key(after), 'seq') or '0' end
  local set = P .. (state == '' and 'all' or 'in:' .. string.sub(state, 2))
  local page = call('ZRANGEBYSCORE', set, '(' .. from, '+inf', 'WITHSCORES', 'LIMIT', 0, AT_ONCE)
  local found = {#page == 2 * AT_ONCE and page[#page] or false}
  for i = 1, #page, 2 do
    local id = page[i]
    if string.sub(id, 1, #prefix) == prefix then
      local f = call('HMGET', job_key(id), 'agent', 'tenant', 'conversation', 'body', 'state', 'enqueued_at', 'due_at',
        'started_at', 'ended_at', 'takes', 'strikes', 'worker', 'steps', 'cause')
      if (agent == '' or '=' .. f[1] == agent) and (tenant == '' or f[2] == tenant)
        and (conversation == '' or '=' .. f[3] == conversation) then
        found[#found + 1] = f
        if #found > limit then
          found[1] = page[i + 1]
          return found
        end
      end
    end
  end
  return found
end

ops.counts = function()
  local due = call('ZCOUNT', P .. 'due', '-inf', now)
  local first = call('ZRANGE', P .. 'due', 0, 0, 'WITHSCORES')[2]
  return {
    due, call('ZCARD', P .. 'in:queued') - due, call('ZCARD', P .. 'in:running'), call('ZCARD', P .. 'in:done'),
    call('ZCARD', P .. 'in:dead'), due > 0 and exact(now - tonumber(first)) or '0',
  }
end

-- id, seconds for which it is followed; gives the step under way and how far it has come, if that is known
ops.listen = function()
  if call('EXISTS', job_key(ARGV[FIRST])) == 0 then return false end
  local key, seconds = P .. 'follow:' .. ARGV[FIRST], tonumber(ARGV[FIRST + 1])
  call('HSET', key, 'till', now + seconds)
  call('EXPIRE', key, math.ceil(seconds) + 60) -- nobody asks for it then
  return call('HMGET', key, 'n', 'body')
end

-- id, steps
ops.retry = function()
  local id = ARGV[FIRST]
  local f = call('HMGET', job_key(id), 'state', 'steps', 'chapter', 'conversation', 'seq')
  if f[1] ~= 'dead' then return f[1] end
  for i = FIRST + 1, #ARGV do add_step(id, tonumber(f[2]) + i - FIRST - 1, ARGV[i], i == FIRST + 1 and f[3] or '-', f[4]) end
  call('HSET', job_key(id), 'strikes', 0)
  call('HDEL', job_key(id), 'ended_at', 'turn')
  call('ZREM', P .. 'in:dead', id)
  call('ZREM', P .. 'kept', 'j' .. id)
  queue(id, tonumber(f[5]), now, f[4])
  return 'dead'
end

-- id
ops.drop = function()
  delete(ARGV[FIRST])
  news = true
  return 0
end

-- the server's run id
-- Says which version of the layout is there. After a restart or a failover every lease and every worker has as long
-- left as it had when the queue was last heard of: nobody could renew anything meanwhile.
ops.open = function()
  local meta = call('HMGET', KEYS[1], 'version', 'run', 'alive')
  local run = ARGV[FIRST]
  if not meta[1] then call('HSET', KEYS[1], 'version', VERSION) end
  if tonumber(meta[1] or VERSION) > VERSION then return tonumber(meta[1]) end
  local away = now - tonumber(meta[3] or now)
  if meta[2] and meta[2] ~= run and away > 0 then
    for _, set in ipairs({P .. 'leases', P .. 'workers'}) do
      local all = call('ZRANGE', set, 0, -1)
      for _, member in ipairs(all) do call('ZINCRBY', set, away, member) end
    end
  end
  if meta[2] ~= run then call('HSET', KEYS[1], 'run', run, 'alive', now) end
  return VERSION
end
