// Conversations with tools over the official SDK, as `test_gateway_node.py` asks for them: prints what came back.
import OpenAI from "openai";

const { url, key, conversations, turns } = JSON.parse(process.argv[2]);
const client = new OpenAI({ apiKey: key, baseURL: url, maxRetries: 0 });
const tool = {
  type: "function",
  name: "read_file",
  strict: false,
  parameters: { type: "object", properties: { path: { type: "string" } }, required: ["path"] },
};

async function take(fields, streamed) {
  if (!streamed) return client.responses.create(fields);
  for (let again = 0; again < 10; again++) {
    const stream = await client.responses.create({ ...fields, stream: true });
    let last;
    let text = 0;
    for await (const event of stream) {
      last = event;
      if (event.type === "response.output_text.delta") text += event.delta.length;
    }
    if (last.type === "response.completed") return last.response;
    if (last.type !== "response.failed") throw new Error(`a stream that ends in ${last.type}`);
  }
  throw new Error("ten times in a row");
}

async function converse(number) {
  const history = [{ role: "user", content: `conversation ${number}` }];
  const byParent = number % 2 === 1;
  let fresh = history;
  let parent;
  const seen = [];
  while (fresh.length) {
    const response = await take(
      {
        model: "gpt-6-astra",
        store: false,
        tools: [tool],
        metadata: { emulator: `calls=${turns - 1} reasoning=${number % 3 ? 1 : 0} output_tokens=8` },
        ...(byParent && parent ? { input: fresh, previous_response_id: parent } : { input: history }),
      },
      number % 4 < 2,
    );
    seen.push({ context: response.metadata.context, items: structuredClone(history) });
    fresh = response.output
      .filter((item) => item.type === "function_call")
      .map((item) => ({ type: "function_call_output", call_id: item.call_id, output: `of ${item.arguments}` }));
    history.push(...response.output, ...fresh);
    parent = response.id;
  }
  return seen;
}

const all = await Promise.all(Array.from({ length: conversations }, (_, number) => converse(number)));
console.log(JSON.stringify(all));
