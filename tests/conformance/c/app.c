/* Low-level cases that bindings hide: the canonical ABI by hand. The first argument names one.
   What a case finds becomes the return value, digit by digit. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
#define COMMON "inferlet:core/common"
#define FORWARD "inferlet:core/forward"
#define RUNTIME "inferlet:core/runtime"
#define POLL "wasi:io/poll@0.2.4"

typedef int32_t handle;
typedef struct { uint32_t *data; size_t size; } numbers;
typedef struct { char *data; size_t size; } text;
typedef struct { text *data; size_t size; } texts;
typedef struct { uint8_t some; handle value; } option_handle;
typedef struct { uint8_t some; numbers value; } option_numbers;
typedef struct { uint8_t is_error; text error; } outcome;

IMPORT(RUNTIME, "get-arguments") void get_arguments(texts *);
IMPORT(RUNTIME, "set-return") void set_return(const char *, size_t);
IMPORT(RUNTIME, "get-model") void get_model(const char *, size_t, option_handle *);
IMPORT(COMMON, "[method]model.create-queue") handle create_queue(handle);
IMPORT(COMMON, "[resource-drop]model") void drop_model(handle);
IMPORT(COMMON, "[resource-drop]queue") void drop_queue(handle);
IMPORT(COMMON, "allocate-resources") void allocate(handle, uint32_t, uint32_t, numbers *);
IMPORT(FORWARD, "create-forward-pass") handle create_pass(handle);
IMPORT(FORWARD, "input-tokens")
void input_tokens(handle, const uint32_t *, size_t, const uint32_t *, size_t);
IMPORT(FORWARD, "kv-cache") void kv_cache(handle, const uint32_t *, size_t, uint32_t);
IMPORT(FORWARD, "attention-mask") void attention_mask(handle, const numbers *, size_t);
IMPORT(FORWARD, "output-tokens") void output_tokens(handle, const uint32_t *, size_t, float);
IMPORT(FORWARD, "[method]forward-pass.execute") void execute(handle, option_handle *);
IMPORT(FORWARD, "[resource-drop]forward-pass") void drop_pass(handle);
IMPORT(FORWARD, "[method]forward-pass-result.pollable") handle result_pollable(handle);
IMPORT(FORWARD, "[method]forward-pass-result.get-tokens") void get_tokens(handle, option_numbers *);
IMPORT(FORWARD, "[resource-drop]forward-pass-result") void drop_result(handle);
IMPORT(POLL, "[method]pollable.ready") int32_t pollable_ready(handle);
IMPORT(POLL, "[method]pollable.block") void pollable_block(handle);
IMPORT(POLL, "poll") void poll_list(const handle *, size_t, numbers *);
IMPORT(POLL, "[resource-drop]pollable") void drop_pollable(handle);

__attribute__((export_name("cabi_realloc")))
void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
  (void)old_size; (void)align;
  return realloc(old, size);
}

static char seen[64];
static size_t count;
static void see(uint32_t digit) { seen[count++] = (char)('0' + digit); }

static handle model(void) {
  option_handle found;
  get_model("simulated", 9, &found);
  return found.value;
}

/* A pass of up to eight tokens at their own positions, into the slots before `length`. */
static handle a_pass(handle queue, uint32_t page, const uint32_t *tokens,
                     const uint32_t *positions, uint32_t size, uint32_t length) {
  handle pass = create_pass(queue);
  uint32_t last = size - 1;
  input_tokens(pass, tokens, size, positions, size);
  kv_cache(pass, &page, 1, length);
  output_tokens(pass, &last, 1, 0.0f);
  return pass;
}

static handle submitted(handle pass) {
  option_handle result;
  execute(pass, &result);
  return result.value;
}

static uint32_t token_of(handle result) {
  option_numbers tokens;
  handle pollable = result_pollable(result);
  pollable_block(pollable);
  drop_pollable(pollable);
  get_tokens(result, &tokens);
  return tokens.value.data[0];
}

static const uint32_t TOKENS[4] = {65, 66, 67, 68}, POSITIONS[4] = {0, 1, 2, 3};

/* Parents before children, and the result before its pollable, which still becomes ready. */
static void drops(void) {
  handle owner = model(), queue = create_queue(owner);
  numbers pages;
  drop_model(owner);
  allocate(queue, 0, 1, &pages);
  handle pass = a_pass(queue, pages.data[0], TOKENS, POSITIONS, 3, 3);
  drop_queue(queue);
  handle result = submitted(pass);
  drop_pass(pass);
  handle first = result_pollable(result), second = result_pollable(result);
  see(pollable_ready(first));
  drop_result(result);
  drop_pollable(second);
  pollable_block(first);
  see(pollable_ready(first));
  drop_pollable(first);
}

/* One pollable twice in a list, and two of the same result. */
static void twice(void) {
  handle queue = create_queue(model());
  numbers pages, ready;
  allocate(queue, 0, 1, &pages);
  handle result = submitted(a_pass(queue, pages.data[0], TOKENS, POSITIONS, 3, 3));
  handle pollable = result_pollable(result), other = result_pollable(result);
  handle all[3] = {pollable, other, pollable};
  poll_list(all, 3, &ready);
  for (size_t i = 0; i < ready.size; i++) see(ready.data[i]);
  see(pollable != other);
}

/* A mask on a decode step that shares its batch with one that has none. */
static void decode(void) {
  static const uint32_t tokens[3] = {65, 67, 68}, positions[3] = {0, 2, 3};
  handle queue = create_queue(model());
  numbers pages;
  allocate(queue, 0, 3, &pages);
  static uint32_t rows[4][3] = {{1}, {2}, {1, 1, 1}, {1, 1, 2}};
  const numbers prompt[3] = {{rows[0], 1}, {rows[1], 1}, {rows[2], 3}}, step[1] = {{rows[3], 3}};
  handle pass = a_pass(queue, pages.data[0], TOKENS, POSITIONS, 3, 3);
  attention_mask(pass, prompt, 3);
  submitted(pass);
  submitted(a_pass(queue, pages.data[1], tokens, positions, 2, 2));
  submitted(a_pass(queue, pages.data[2], TOKENS, POSITIONS, 3, 3));
  pass = a_pass(queue, pages.data[0], TOKENS + 3, POSITIONS + 3, 1, 4);
  attention_mask(pass, step, 1);
  handle masked = submitted(pass);
  handle removed = submitted(a_pass(queue, pages.data[1], tokens + 2, positions + 2, 1, 3));
  handle causal = submitted(a_pass(queue, pages.data[2], TOKENS + 3, POSITIONS + 3, 1, 4));
  uint32_t one = token_of(masked), two = token_of(removed), three = token_of(causal);
  see(one == two);
  see(one == three);
}

static void second(void) {
  handle queue = create_queue(model());
  numbers pages;
  allocate(queue, 0, 1, &pages);
  handle pass = a_pass(queue, pages.data[0], TOKENS, POSITIONS, 3, 3);
  submitted(pass);
  submitted(pass);
}

static void dropped(void) {
  handle queue = create_queue(model());
  drop_queue(queue);
  create_pass(queue);
}

static void other_kind(void) { create_pass(model()); }

static void outside(void) {
  handle pass = create_pass(create_queue(model()));
  input_tokens(pass, (const uint32_t *)0xfffffff0u, 3, POSITIONS, 3);
}

static const struct { const char *name; void (*body)(void); } CASES[] = {
    {"drops", drops},     {"twice", twice},           {"decode", decode},  {"second", second},
    {"dropped", dropped}, {"other-kind", other_kind}, {"outside", outside}};

__attribute__((export_name("inferlet:core/run#run")))
outcome *run(void) {
  static outcome result;
  texts arguments;
  get_arguments(&arguments);
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
    if (strlen(CASES[i].name) == arguments.data[0].size &&
        !memcmp(CASES[i].name, arguments.data[0].data, arguments.data[0].size))
      CASES[i].body();
  set_return(seen, count);
  return &result;
}
