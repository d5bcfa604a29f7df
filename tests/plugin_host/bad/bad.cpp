// The 24 broken plugins of reliability.md section 8, one a library: BAD is what it does. Each has a scheme that does it
// from its twentieth call on (so that the trial in a process of its own passes and the program itself is hit), a metric
// that does it when it is first fed, an importer that does it when it reads, and a report section that does it when it
// writes. Those that break at loading do so at once.
#include <switchyard/plugin.h>

#include <fenv.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <stdexcept>

#define NULL_WRITE 1
#define ABORT 2
#define EXIT 3
#define THROW 4
#define THROW_IN_CONSTRUCTOR 5
#define STACK_OVERFLOW 6
#define ENDLESS_LOOP 7
#define DEADLOCK 8
#define LEAK 9
#define DOUBLE_FREE 10
#define WRONG_ABI 11
#define MISSING_SYMBOL 12
#define MISSING_DEPENDENCY 13
#define ZERO_TABLE 14
#define THREAD 15
#define CLOSE_STDERR 16
#define SETLOCALE 17
#define CHDIR 18
#define SIGNAL 19
#define FLOATS 20
#define PRINTS 21
#define OVERRUN 22
#define NOT_A_NUMBER 23
#define SLOW 24

namespace {

#if BAD == THROW_IN_CONSTRUCTOR
struct Thrower {
  Thrower() { throw std::runtime_error("from a constructor"); }
} thrower;
#endif

#if BAD == MISSING_DEPENDENCY
extern "C" int a_function_of_no_library(void);
#endif

volatile int sink = 0;

int deeper(int depth) {
  volatile char room[4096];
  room[0] = char(depth);
  return depth < 0 ? 0 : deeper(depth + 1) + room[0];
}

void* run_for_ever(void*) {
  for (;;) usleep(10'000);
}

[[maybe_unused]] void misbehave() {
#if BAD == NULL_WRITE
  volatile int* volatile nowhere = nullptr;  // or the compiler leaves it out
  *nowhere = 1;
#elif BAD == ABORT
  abort();
#elif BAD == EXIT
  exit(0);
#elif BAD == THROW
  throw std::runtime_error("across the border");
#elif BAD == STACK_OVERFLOW
  sink = deeper(0);
#elif BAD == ENDLESS_LOOP
  for (;;) sink = sink + 1;
#elif BAD == DEADLOCK
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&mutex);
  pthread_mutex_lock(&mutex);
#elif BAD == LEAK
  for (int i = 0; i < 160; ++i) {  // 10 GiB; only its first byte is touched
    char* lost = static_cast<char*>(malloc(64 << 20));
    *lost = 1;
  }
#elif BAD == DOUBLE_FREE
  char* once = static_cast<char*>(malloc(100));
  char* volatile twice = once;
  free(once);
  free(twice);
#elif BAD == THREAD
  pthread_t thread;
  if (pthread_create(&thread, nullptr, run_for_ever, nullptr) == 0) pthread_detach(thread);
#elif BAD == CLOSE_STDERR
  close(2);
#elif BAD == SETLOCALE
  if (!setlocale(LC_ALL, "de_DE.UTF-8")) setlocale(LC_ALL, "C.UTF-8");
#elif BAD == CHDIR
  if (chdir("/") != 0) abort();
#elif BAD == SIGNAL
  signal(SIGTERM, SIG_IGN);
#elif BAD == FLOATS
  fesetround(FE_UPWARD);
#elif BAD == PRINTS
  printf("{\"not\": \"yours\"}\n");
  fflush(stdout);
#elif BAD == SLOW
  usleep(3000);
#endif
}

int calls = 0;

int route(void*, const sy_scheme_in* in, sy_scheme_out* out, void*) {
  const bool now = ++calls >= 20;
  for (uint32_t t = 0; t < in->tokens; ++t) {
    uint32_t used = 0;
    for (uint32_t e = 0; e < in->experts && used < in->k; ++e) {
      if (in->logits[t * in->experts + e] < -1e30f) continue;
      out->id[t * in->slots + used] = int32_t(e);
      out->weight[t * in->slots + used++] = 1.0f / float(in->k);
    }
    out->count[t] = used;
  }
  if (now) {
    misbehave();
#if BAD == OVERRUN
    for (uint32_t i = 0; i < 4; ++i) out->weight[in->tokens * in->slots + i] = 3;
#elif BAD == NOT_A_NUMBER
    out->weight[0] = 0.0f / (float(in->experts) - float(in->experts));
#elif BAD == ZERO_TABLE
    out->count[0] = 0;
#endif
  }
  return 0;
}

void* create(void*, const sy_trace_shape*, void*) {
  return &calls;
}
int feed(void*, const sy_block*, void*) {
  misbehave();
  return 0;
}
int merge(void*, const void*, void*) {
  return 0;
}
uint64_t rows(void*, uint32_t) {
  return BAD == LEAK ? uint64_t(1) << 40 : 1;
}
int result(void*, uint32_t, double* cells, void*) {
  cells[0] = BAD == NOT_A_NUMBER ? 0.0 / (cells[0] - cells[0]) : 1;
#if BAD == OVERRUN
  for (int i = 0; i < 4; ++i) cells[1 + i] = 2;
#endif
  return 0;
}
void destroy(void*) {}

int probe(void*, const char*, const void*, uint64_t) {
  return 100;
}
int read(void*, const sy_source*, const sy_sink* to, void*) {
  misbehave();
  const int32_t layer = 0, id = BAD == OVERRUN ? 70'000 : 1;
  const double weight = BAD == NOT_A_NUMBER ? 0.0 / (double(id) - double(id)) : 1;
  const sy_tokens piece = {sizeof piece, 1,      1, BAD == ZERO_TABLE ? 0u : 1u, &layer, &id, &weight, nullptr, 0,
                           nullptr,      "bad:1"};
  return to->begin_sequence(to, 0, "") != 0 || to->tokens(to, &piece) != 0;
}

int write(void*, const sy_report_in* in, const sy_report_out* to, void*) {
  misbehave();
  static const sy_column column = {sizeof column, 0, "value", ""};
  const double tokens = double(in->trace->tokens), number = BAD == NOT_A_NUMBER ? 1 / (tokens - tokens) : 1;
  const sy_report_table table = {sizeof table,
                                 BAD == ZERO_TABLE ? 0u : 1u,
                                 BAD == OVERRUN || BAD == LEAK ? uint64_t(1) << 40 : 1u,
                                 "values",
                                 "Broken on purpose.",
                                 &column,
                                 &number,
                                 nullptr};
  return to->text(to, "Broken on purpose.") != 0 || to->table(to, &table) != 0;
}

int init(const sy_host*, void** self, void*) {
#if BAD == MISSING_DEPENDENCY
  sink = a_function_of_no_library();
#endif
  *self = &calls;
  return 0;
}

const sy_scheme kScheme = {sizeof(sy_scheme), 0, 0, 0, route};
const sy_column kColumn = {sizeof(sy_column), 0, "value", ""};
const sy_table kTable = {sizeof(sy_table), BAD == ZERO_TABLE ? 0u : 1u, "values", &kColumn};
const sy_metric kMetric = {sizeof(sy_metric), 1, &kTable, create, feed, merge, rows, result, destroy};
const sy_report_section kSection = {sizeof(sy_report_section), 0, write};
const sy_reader kReader = {BAD == ZERO_TABLE ? 0u : uint32_t(sizeof(sy_reader)), 0, probe, read};

const sy_scheme* scheme(void*, const char*) {
  return &kScheme;
}
const sy_metric* metric(void*, const char*) {
  return &kMetric;
}
const sy_reader* reader(void*, const char*) {
  return &kReader;
}

const sy_report_section* report_section(void*, const char*) {
  return &kSection;
}

const sy_plugin kPlugin = {BAD == WRONG_ABI ? 16u : uint32_t(sizeof(sy_plugin)),
                           SY_MAGIC,
                           SY_COMPILER_TAG,
                           SY_CORE_CONTRACT,
                           SY_VIEW_CONTRACT,
                           0,
                           init,
                           nullptr,
                           scheme,
                           nullptr,
                           metric,
                           nullptr,
                           reader,
                           nullptr,
                           report_section};

}  // namespace

#if BAD == MISSING_SYMBOL
extern "C" SY_EXPORT const sy_plugin* another_name(void) {
  return &kPlugin;
}
#else
extern "C" SY_EXPORT const sy_plugin* switchyard_plugin(void) {
  return &kPlugin;
}
#endif
