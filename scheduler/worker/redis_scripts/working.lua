-- For workers.

local function hear(worker, info)
  call('ZADD', P .. 'workers', now + LEASE, worker)
  call('HSET', P .. 'infos', worker, info)
  call('HSET', KEYS[1], 'alive', now)
end

-- A worker is gone: nobody waits for it any more.
local function forget_worker(worker)
  call('ZREM', P .. 'workers', worker)
  call('HDEL', P .. 'infos', worker)
  local held = P .. 'held:' .. worker
  local entries = call('ZRANGE', held, 0, -1, 'WITHSCORES')
  for i = 1, #entries, 2 do
    local id = id_of(entries[i])
    call('ZADD', placing(id).ready, entries[i + 1], entries[i])
    call('ZREM', P .. 'waits', id)
    news = true
  end
  call('DEL', held)
end

-- Take back the jobs whose lease has ended.
local function settle()
  for _, id in ipairs(first_until('leases', now)) do
    local f = call('HMGET', job_key(id), 'strikes', 'attempts', 'worker')
    local strikes = tonumber(f[1]) + 1
    local cause = cjson.encode({
      type = 'WorkerLost',
      message = 'worker ' .. f[3] .. ' was not heard for the length of a lease while it had the job (strike '
        .. string.format('%.0f of %s)', strikes, f[2]),
    })
    end_try(id, cause, strikes, strikes < tonumber(f[2]))
  end
  for _, worker in ipairs(first_until('workers', now)) do forget_worker(worker) end
end

-- Place what has become due, and give up to all what has waited long enough for one.
local function promote()
  place_due()
  for _, id in ipairs(first_until('waits', now - HEAD_START)) do
    local j = placing(id)
    call('ZREM', P .. 'waits', id)
    call('ZADD', j.ready, j.score, j.member)
    news = true
  end
end

local function candidates(worker, agents, limit, suspects)
  local found, mine, mates = {}, {}, {}
  for _, agent in ipairs(agents) do mates[agent] = true end
  local function add(set, most, suspect)
    local entries = most > 0 and call('ZRANGE', P .. set, 0, most - 1, 'WITHSCORES') or {}
    for i = 1, #entries, 2 do
      if not mine[entries[i]] then
        found[#found + 1] = {member = entries[i], score = tonumber(entries[i + 1]), suspect = suspect, mine = false}
      end
    end
  end
  local held = call('ZRANGE', P .. 'held:' .. worker, 0, -1, 'WITHSCORES')
  for i = 1, #held, 2 do
    local f = call('HMGET', job_key(id_of(held[i])), 'agent', 'strikes')
    if mates[f[1]] then
      mine[held[i]] = true
      found[#found + 1] =
        {member = held[i], score = tonumber(held[i + 1]), suspect = tonumber(f[2]) > 0, mine = true}
    end
  end
  for _, agent in ipairs(agents) do
    add('ready:' .. agent, limit, false)
    add('suspects:' .. agent, math.min(limit, suspects), true)
  end
  table.sort(found, function(a, b)
    if a.score ~= b.score then return a.score < b.score end
    if a.mine ~= b.mine then return a.mine end
    return a.member < b.member
  end)
  return found
end

-- Note how far it has come with the turns. A tenant behind that is as one that has never been here.
local function note_turns(highest)
  for priority, turn in pairs(highest) do
    if turn > tonumber(call('HGET', P .. 'handed', priority) or 0) then
      call('HSET', P .. 'handed', priority, turn)
      call('ZREMRANGEBYSCORE', P .. 'turns:' .. priority, '-inf', turn)
    end
  end
end

local function hand_out(id, worker, highest)
  unplace(id)
  local key = job_key(id)
  local f = call('HMGET', key, 'body', 'strikes', 'steps', 'chapter', 'conversation', 'due_at', 'seq', 'priority', 'turn')
  highest[f[8]] = math.max(tonumber(f[9]), highest[f[8]] or 0)
  local chapter, steps, conversation = 0, tonumber(f[3]), f[5]
  if conversation ~= '' then
    local talk = talk_key(conversation)
    chapter = tonumber(call('HGET', talk, 'chapter') or 0)
    call('ZREM', talk .. ':queued', id)
    call('HDEL', talk, 'placed')
    call('HSET', talk, 'running', id)
  end
  if f[4] and tonumber(f[4]) ~= chapter then
    call('DEL', steps_key(id))
    steps = 0
  end
  if steps == 0 then call('HDEL', key, 'chapter') end
  -- Greater than any other of this queue; from the clock, so that it is so too for those a failover has forgotten.
  local token = math.max(tonumber(call('HGET', KEYS[1], 'token') or 0) + 1, math.floor(now * 1e6))
  call('HSET', KEYS[1], 'token', token)
  call('ZREM', P .. 'in:queued', id)
  call('ZREM', P .. 'due', id)
  call('ZADD', P .. 'in:running', f[7], id)
  call('ZADD', P .. 'leases', now + LEASE, id)
  call('HSETNX', key, 'started_at', now)
  call('HINCRBY', key, 'takes', 1)
  call('HSET', key, 'state', 'running', 'token', token, 'worker', worker, 'steps', steps)
  return {f[1], token, tonumber(f[2]), steps, chapter, exact(math.max(0, now - tonumber(f[6])))}
end

-- worker, info, limit, suspects, agents
-- Gives the latest event, then the claims.
ops.take = function()
  local worker, limit, suspects = ARGV[FIRST], tonumber(ARGV[FIRST + 2]), tonumber(ARGV[FIRST + 3])
  hear(worker, ARGV[FIRST + 1])
  settle()
  promote()
  tell()
  local last = call('XREVRANGE', P .. 'events', '+', '-', 'COUNT', 1)[1]
  local taken, agents = {last and last[1] or '0-0'}, {''}
  for i = FIRST + 4, #ARGV do
    if ARGV[i] ~= '' then agents[#agents + 1] = ARGV[i] end
  end
  local highest = {}
  for _, c in ipairs(candidates(worker, agents, limit, suspects)) do
    if #taken > limit then break end
    if not c.suspect or suspects > 0 then
      if c.suspect then suspects = suspects - 1 end
      taken[#taken + 1] = hand_out(id_of(c.member), worker, highest)
    end
  end
  note_turns(highest)
  return taken
end

-- A job's fields if its token is the claim's and its state one of those named; else nil.
local function held(id, worker, token, states)
  local f = call('HMGET', job_key(id), 'token', 'worker', 'state', 'steps', 'chapter', 'conversation', 'strikes',
    'attempts', 'seq', 'due_at')
  if not f[1] or tonumber(f[1]) ~= tonumber(token) or f[2] ~= worker or not states[f[3]] then return nil end
  return {
    state = f[3], steps = tonumber(f[4]), chapter = f[5], conversation = f[6], strikes = tonumber(f[7]),
    attempts = tonumber(f[8]), seq = tonumber(f[9]), due = tonumber(f[10]),
  }
end

local RUNNING = {running = true}

local function forget_old()
  local left = AT_ONCE
  for _, entry in ipairs(first_until('kept', now)) do
    local name = string.sub(entry, 2)
    if string.sub(entry, 1, 1) == 'j' then
      delete(name)
      left = left - 1
    else
      local done = talk_key(name) .. ':done'
      for _, id in ipairs(call('ZRANGE', done, 0, math.max(0, left - 1))) do
        delete(id)
        left = left - 1
      end
      if call('ZCARD', done) == 0 then call('ZREM', P .. 'kept', entry) end
    end
    if left <= 0 then return end
  end
end

-- worker, info, then id and token of each claim
-- Gives the places of the claims that are lost.
ops.beat = function()
  local worker, lost = ARGV[FIRST], {}
  hear(worker, ARGV[FIRST + 1])
  for i = FIRST + 2, #ARGV, 2 do
    if held(ARGV[i], worker, ARGV[i + 1], RUNNING) then
      call('ZADD', P .. 'leases', now + LEASE, ARGV[i])
    else
      lost[#lost + 1] = (i - FIRST - 2) / 2
    end
  end
  settle()
  promote()
  forget_old()
  return lost
end

-- id, worker, token; gives {id, steps} of the conversation's done jobs in order, and of the job itself at the end
ops.history = function()
  local id = ARGV[FIRST]
  local j = held(id, ARGV[FIRST + 1], ARGV[FIRST + 2], RUNNING)
  if not j then return 'lost' end
  local story = {}
  if j.conversation ~= '' then
    for _, done in ipairs(call('ZRANGE', talk_key(j.conversation) .. ':done', 0, -1)) do
      story[#story + 1] = {done, call('XRANGE', steps_key(done), '-', '+')}
    end
  end
  story[#story + 1] = {id, call('XRANGE', steps_key(id), '-', '+')}
  return story
end

-- id, worker, token, index, body
ops.append = function()
  local id, index = ARGV[FIRST], tonumber(ARGV[FIRST + 3])
  local j = held(id, ARGV[FIRST + 1], ARGV[FIRST + 2], RUNNING)
  if not j then return 'lost' end
  if index < j.steps then return 'kept' end
  if index > j.steps then
    -- A failover has lost steps that were acknowledged. The transcript must have no hole: back to where it ends.
    stop_running(id, j.conversation)
    queue(id, j.seq, j.due, j.conversation)
    return 'lost'
  end
  add_step(id, index, ARGV[FIRST + 4], j.chapter, j.conversation)
  if j.strikes > 0 then call('HSET', job_key(id), 'strikes', 0) end
  call('HSET', KEYS[1], 'alive', now)
  call('HDEL', job_key(id), 'cause')
  return 'kept'
end

-- ids; gives the places of those that somebody follows
ops.listened = function()
  local followed = {}
  for i = FIRST, #ARGV do
    local till = call('HGET', P .. 'follow:' .. ARGV[i], 'till')
    if till and tonumber(till) > now then followed[#followed + 1] = i - FIRST end
  end
  return followed
end

-- id, worker, token, index, body
ops.draft = function()
  local key = P .. 'follow:' .. ARGV[FIRST]
  if held(ARGV[FIRST], ARGV[FIRST + 1], ARGV[FIRST + 2], RUNNING) and call('EXISTS', key) == 1 then
    call('HSET', key, 'n', ARGV[FIRST + 3], 'body', ARGV[FIRST + 4])
  end
  return 0
end

-- id, worker, token, result, holds
ops.finish = function()
  local id, worker = ARGV[FIRST], ARGV[FIRST + 1]
  local j = held(id, worker, ARGV[FIRST + 2], {running = true, done = true})
  if not j then return 'lost' end
  if j.state == 'done' then return 'done' end
  stop_running(id, j.conversation)
  local chapter = 0
  if j.conversation == '' then
    call('ZADD', P .. 'kept', now + RETENTION, 'j' .. id)
  else
    local talk = talk_key(j.conversation)
    chapter = tonumber(call('HGET', talk, 'chapter') or 0)
    call('HSET', talk, 'chapter', chapter + 1, 'ended_at', now)
    if ARGV[FIRST + 4] == '1' then call('HSET', talk, 'holder', worker) else call('HDEL', talk, 'holder') end
    call('ZADD', talk .. ':done', chapter, id)
    call('ZADD', P .. 'kept', now + RETENTION, 'c' .. j.conversation)
  end
  call('HSET', job_key(id), 'state', 'done', 'result', ARGV[FIRST + 3], 'ended_at', now, 'strikes', 0,
    'chapter', chapter)
  call('HDEL', job_key(id), 'cause')
  call('ZADD', P .. 'in:done', j.seq, id)
  if j.conversation ~= '' then refresh(j.conversation) end
  news = true
  return 'done'
end

-- id, worker, token, cause, seconds until it is tried again (empty: never)
ops.fail = function()
  local id, wait = ARGV[FIRST], tonumber(ARGV[FIRST + 4])
  local j = held(id, ARGV[FIRST + 1], ARGV[FIRST + 2], {running = true, dead = true, queued = true})
  if not j then return 'lost' end
  if j.state ~= 'running' then return j.state end
  local strikes = j.strikes + 1
  local again = wait and strikes < j.attempts
  end_try(id, ARGV[FIRST + 3], strikes, again, now + (wait or 0))
  return again and 'queued' or 'dead'
end

-- worker, then id and token of each claim
ops.release = function()
  local worker = ARGV[FIRST]
  for i = FIRST + 1, #ARGV, 2 do
    local j = held(ARGV[i], worker, ARGV[i + 1], RUNNING)
    if j then
      stop_running(ARGV[i], j.conversation)
      queue(ARGV[i], j.seq, j.due, j.conversation)
    end
  end
  return 0
end

-- worker
ops.leave = function()
  forget_worker(ARGV[FIRST])
  return 0
end

ops.workers = function()
  local living = call('ZRANGEBYSCORE', P .. 'workers', '(' .. exact(now), '+inf')
  return #living > 0 and call('HMGET', P .. 'infos', unpack(living)) or {}
end
