/* Greedy decoding with nothing between a guest and the host: the canonical ABI by hand. Arguments:
   the number of tokens, then the prompt's tokens in decimal, separated by commas; with a third one
   there is a pass for each token, otherwise the engine goes on by itself. The result is the tokens
   as a JSON list. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
#define COMMON "inferlet:core/common"
#define FORWARD "inferlet:core/forward"
#define RUNTIME "inferlet:core/runtime"
#define EXT "pie:ext/ext"
#define POLL "wasi:io/poll@0.2.4"

typedef int32_t handle;
typedef struct { uint32_t *data; size_t size; } numbers;
typedef struct { char *data; size_t size; } text;
typedef struct { text *data; size_t size; } texts;
typedef struct { uint8_t some; handle value; } option_handle;
typedef struct { uint8_t some; numbers value; } option_numbers;
typedef struct { numbers tokens; uint8_t over; } drawing;
typedef struct { uint8_t is_error; text error; } outcome;

IMPORT(RUNTIME, "get-arguments") void get_arguments(texts *);
IMPORT(RUNTIME, "get-all-models") void get_all_models(texts *);
IMPORT(RUNTIME, "set-return") void set_return(const char *, size_t);
IMPORT(RUNTIME, "get-model") void get_model(const char *, size_t, option_handle *);
IMPORT(COMMON, "[method]model.create-queue") handle create_queue(handle);
IMPORT(COMMON, "[method]model.get-kv-page-size") uint32_t get_page_size(handle);
IMPORT(COMMON, "allocate-resources") void allocate(handle, uint32_t, uint32_t, numbers *);
IMPORT(FORWARD, "create-forward-pass") handle create_pass(handle);
IMPORT(FORWARD, "input-tokens")
void input_tokens(handle, const uint32_t *, size_t, const uint32_t *, size_t);
IMPORT(FORWARD, "kv-cache") void kv_cache(handle, const uint32_t *, size_t, uint32_t);
IMPORT(FORWARD, "output-tokens") void output_tokens(handle, const uint32_t *, size_t, float);
IMPORT(FORWARD, "[method]forward-pass.execute") void execute(handle, option_handle *);
IMPORT(FORWARD, "[resource-drop]forward-pass") void drop_pass(handle);
IMPORT(FORWARD, "[method]forward-pass-result.pollable") handle result_pollable(handle);
IMPORT(FORWARD, "[method]forward-pass-result.get-tokens") void get_tokens(handle, option_numbers *);
IMPORT(FORWARD, "[resource-drop]forward-pass-result") void drop_result(handle);
IMPORT(EXT, "decode")
handle decode(handle, uint32_t, const uint32_t *, size_t, const uint32_t *, size_t);
IMPORT(EXT, "[method]decoding.ended") handle decoding_ended(handle);
IMPORT(EXT, "[method]decoding.get") void decoding_get(handle, uint32_t, drawing *);
IMPORT(EXT, "[resource-drop]decoding") void drop_decoding(handle);
IMPORT(POLL, "[method]pollable.block") void pollable_block(handle);
IMPORT(POLL, "[resource-drop]pollable") void drop_pollable(handle);

__attribute__((export_name("cabi_realloc")))
void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
  (void)old_size; (void)align;
  return realloc(old, size);
}

/* The number at `*at`, which moves behind it and the comma. */
static uint32_t number(const char **at, const char *end) {
  uint32_t value = 0;
  while (*at < end && **at != ',') value = value * 10 + (uint32_t)(*(*at)++ - '0');
  ++*at;
  return value;
}

static uint32_t page_count(uint32_t slots, uint32_t page_size) {
  return (slots + page_size - 1) / page_size;
}

/* A pass over `rows` tokens that end at `length` slots, for the token after the last. */
static handle pass_over(handle queue, const numbers *pages, uint32_t page_size,
                        const uint32_t *tokens, uint32_t rows, uint32_t length) {
  uint32_t last = rows - 1, first = length - rows;
  uint32_t *positions = malloc(rows * sizeof *positions);
  for (uint32_t i = 0; i < rows; i++) positions[i] = first + i;
  handle pass = create_pass(queue);
  input_tokens(pass, tokens, rows, positions, rows);
  kv_cache(pass, pages->data, page_count(length, page_size), (length - 1) % page_size + 1);
  output_tokens(pass, &last, 1, 0.0f);
  free(positions);
  return pass;
}

static void wait_for(handle pollable) {
  pollable_block(pollable);
  drop_pollable(pollable);
}

/* Executes a pass: the token after its last input. */
static uint32_t step(handle pass) {
  option_handle result;
  option_numbers drawn;
  execute(pass, &result);
  drop_pass(pass);
  wait_for(result_pollable(result.value));
  get_tokens(result.value, &drawn);
  drop_result(result.value);
  uint32_t token = drawn.value.data[0];
  free(drawn.value.data);
  return token;
}

/* Has the engine go on from a pass: `count` tokens, in `growth` where its pages are full. */
static void steps(handle pass, uint32_t count, const uint32_t *growth, size_t grown,
                  uint32_t *tokens) {
  drawing drawn;
  handle decoding = decode(pass, count, NULL, 0, growth, grown);
  drop_pass(pass);
  wait_for(decoding_ended(decoding));
  decoding_get(decoding, count, &drawn);
  drop_decoding(decoding);
  memcpy(tokens, drawn.tokens.data, count * sizeof *tokens);
  free(drawn.tokens.data);
}

static char *decimal(char *at, uint32_t value) {
  char digits[10];
  int count = 0;
  do digits[count++] = (char)('0' + value % 10); while (value /= 10);
  while (count) *at++ = digits[--count];
  return at;
}

__attribute__((export_name("inferlet:core/run#run")))
outcome *run(void) {
  static outcome result;
  texts arguments, models;
  option_handle model;
  numbers pages;
  get_arguments(&arguments);
  get_all_models(&models);
  get_model(models.data[0].data, models.data[0].size, &model);
  handle queue = create_queue(model.value);
  uint32_t page_size = get_page_size(model.value);

  const char *at = arguments.data[0].data;
  uint32_t count = number(&at, at + arguments.data[0].size), size = 0;
  at = arguments.data[1].data;
  const char *end = at + arguments.data[1].size;
  uint32_t *tokens = malloc((arguments.data[1].size / 2 + 1 + count) * sizeof *tokens);
  while (at < end) tokens[size++] = number(&at, end);

  allocate(queue, 0, page_count(size + count, page_size), &pages);
  handle pass = pass_over(queue, &pages, page_size, tokens, size, size);
  if (arguments.size < 3) {
    uint32_t used = page_count(size, page_size);
    steps(pass, count, pages.data + used, pages.size - used, tokens + size);
  } else {
    tokens[size] = step(pass);
    for (uint32_t length = size + 1; length < size + count; length++)
      tokens[length] = step(pass_over(queue, &pages, page_size, tokens + length - 1, 1, length));
  }

  char *drawn = malloc(count * 11 + 3), *to = drawn;
  *to++ = '[';
  for (uint32_t i = 0; i < count; i++) {
    if (i) *to++ = ',';
    to = decimal(to, tokens[size + i]);
  }
  *to++ = ']';
  set_return(drawn, (size_t)(to - drawn));
  return &result;
}
