// Converses over WebSockets of the official SDK, several lanes on each, and prints what each turn was told.
// Argument: {"url", "key", "sockets", "lanes", "turns"} as JSON. Every other socket compresses.
import OpenAI from 'openai';
import { ResponsesWS } from 'openai/resources/responses/ws';

const asked = JSON.parse(process.argv[2]);
const client = new OpenAI({ baseURL: asked.url, apiKey: asked.key, maxRetries: 0 });

function opened(number) {
  const waiting = new Map();
  const socket = new ResponsesWS(client, { perMessageDeflate: number % 2 === 1 });
  socket.on('error', (error) => {
    console.error(`socket ${number}: ${error.message}`);
    process.exit(3);
  });
  socket.on('event', (event) => {
    const told = waiting.get(event.stream_id ?? null);
    told.events.push(event);
    if (['response.completed', 'response.failed', 'response.incomplete', 'error'].includes(event.type)) {
      waiting.delete(event.stream_id ?? null);
      told.resolve(told.events);
    }
  });
  const take = (lane, fields) =>
    new Promise((resolve) => {
      waiting.set(lane, { events: [], resolve });
      socket.send({ type: 'response.create', ...fields, ...(lane === null ? {} : { stream_id: lane }) });
    });
  return { socket, take };
}

async function converse(take, name, lane) {
  const items = [];
  const seen = [];
  let parent = null;
  for (let turn = 0; turn < asked.turns; turn++) {
    const input = [{ type: 'message', role: 'user', content: `${name} turn ${turn}` }];
    items.push(...input);
    let events, last;
    for (let again = 0; again < 10; again++) {
      events = await take(lane, {
        model: 'gpt-6-astra',
        store: false,
        input,
        previous_response_id: parent,
        metadata: { emulator: 'calls=0 output_tokens=12' },
      });
      last = events.at(-1);
      if (last.type !== 'response.failed') break; // a socket that is lost upstream in mid-response cannot be hidden
    }
    if (last.type !== 'response.completed') throw new Error(`${name}: ${JSON.stringify(last)}`);
    const numbers = events.map((event) => event.sequence_number);
    if (numbers.some((number, index) => number !== index)) throw new Error(`${name}: numbers ${numbers}`);
    const text = events
      .filter((event) => event.type === 'response.output_text.delta')
      .map((event) => event.delta)
      .join('');
    seen.push({ context: last.response.metadata.context, items: [...items], text });
    items.push(...last.response.output);
    parent = last.response.id;
  }
  return seen;
}

const all = [];
const sockets = [];
for (let number = 0; number < asked.sockets; number++) {
  const { socket, take } = opened(number);
  sockets.push(socket);
  for (let index = 0; index < asked.lanes; index++) {
    const lane = index === 0 ? null : `lane-${index}`;
    all.push(converse(take, `socket ${number} lane ${index}`, lane));
  }
}
const conversations = await Promise.all(all);
for (const socket of sockets) socket.close();
console.log(JSON.stringify(conversations));
