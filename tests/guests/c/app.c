/* The scenario of tests/guest/test_toolchains.py in C: the canonical ABI by hand. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
#define API "test:toy/api"
#define POLL "wasi:io/poll@0.2.0"

typedef struct { char *data; size_t size; } text;
typedef struct { uint32_t first; text second; } pair;
typedef struct { uint8_t is_error; union { pair ok; text error; }; } swapped;
typedef struct { uint8_t is_error; text error; } outcome;

IMPORT(API, "mode") void api_mode(text *);
IMPORT(API, "note") void api_note(const char *, size_t);
IMPORT(API, "swap") void api_swap(uint32_t, const char *, size_t, swapped *);
IMPORT(API, "[constructor]counter") int32_t counter_new(uint32_t);
IMPORT(API, "[method]counter.add") uint32_t counter_add(int32_t, uint32_t);
IMPORT(API, "[method]counter.after") int32_t counter_after(int32_t, uint32_t);
IMPORT(API, "[resource-drop]counter") void counter_drop(int32_t);
IMPORT(POLL, "[method]pollable.block") void pollable_block(int32_t);
IMPORT(POLL, "poll") void poll_list(const int32_t *, size_t, void *);
IMPORT(POLL, "[resource-drop]pollable") void pollable_drop(int32_t);

__attribute__((export_name("cabi_realloc")))
void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
  (void)old_size; (void)align;
  return realloc(old, size);
}

static void note(const char *words) { api_note(words, strlen(words)); }

static int deep(volatile int depth) {
  volatile char frame[4096];
  frame[0] = (char)depth;
  return depth < 0 ? 0 : deep(depth + 1) + frame[0];
}

__attribute__((export_name("inferlet:core/run#run")))
outcome *run(void) {
  static outcome result;
  text mode;
  swapped answer;
  struct { uint32_t *data; size_t size; } ready;
  api_mode(&mode);
  int32_t counter = counter_new(40);
  int32_t all[3] = {counter_after(counter, 200), counter_after(counter, 100), 0};
  all[2] = all[1];
  poll_list(all, 3, &ready);
  pollable_block(all[0]);
  api_swap(counter_add(counter, 2), "words", 5, &answer);
  char line[64] = "";
  line[0] = '0' + (char)ready.size;
  line[1] = answer.is_error ? '!' : ' ';
  memcpy(line + 2, answer.ok.second.data, answer.ok.second.size);
  note(line);
  pollable_drop(all[0]);
  pollable_drop(all[1]);
  counter_drop(counter);
  switch (mode.size ? mode.data[0] : 0) {
  case 'e':
    result.is_error = 1;
    result.error.data = "a wanted error";
    result.error.size = 14;
    break;
  case 'd': /* deep */
    line[0] = (char)deep(0);
    note(line);
    break;
  case 'm': /* memory */
    for (volatile char *block; (block = malloc(1 << 20));) *block = 1;
    __builtin_trap();
  }
  return &result;
}
