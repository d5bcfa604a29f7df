/* The contract between Switchyard and other people's code. C only: no C++ type, exception, allocator or standard library
 * object crosses it. The header-only C++ wrapper is plugin.hpp.
 *
 * Rules that hold everywhere
 *  - A struct begins with `struct_size`, the size that its maker knows. Nobody reads a field beyond the other's size, so
 *    fields are only ever appended. What cannot be appended changes a contract number.
 *  - Pointers that are passed in are valid during the call alone; copy what must live longer. Output goes into buffers of
 *    the caller, as large as the plugin's declaration says; writing past them is noticed and switches the plugin off.
 *  - A function that gives `int` gives 0 for success. Anything else is a failure; say why with sy_host::fail() first.
 *  - Text is UTF-8 and ends in NUL.
 *  - No exception may leave a function. One that does is caught where that is possible, and counts as a failure.
 *  - Calls into one plugin never overlap, whatever thread they come from, unless a line below says otherwise.
 *  - Leave locale, working folder, descriptors 0 to 2, signal handlers and floating-point environment as they are: they
 *    are compared after init(), put back, and the plugin is named. */
#ifndef SWITCHYARD_PLUGIN_H
#define SWITCHYARD_PLUGIN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Contract numbers. A plugin that was built for contract N works in every later program of contract N. */
#define SY_CORE_CONTRACT 1u
#define SY_VIEW_CONTRACT 1u

#define SY_MAGIC 0x50475953u /* "SYGP": what the first word behind struct_size must be */
/* What the compiler makes of this header: sizes of pointer, double and an enumeration. The program compares it with its own. */
#define SY_COMPILER_TAG ((uint32_t)(sizeof(void*) | sizeof(double) << 8 | sizeof(uint64_t) << 16))

#if defined(__GNUC__)
#define SY_EXPORT __attribute__((visibility("default")))
#else
#define SY_EXPORT
#endif

/* ---- What the program offers ----------------------------------------------------------------------------------- */

enum { SY_DEBUG = 0, SY_INFO = 1, SY_WARNING = 2, SY_ERROR = 3 }; /* levels of log() */

typedef struct sy_host {
  uint32_t struct_size;
  uint32_t core_contract, view_contract; /* of the program */
  uint32_t reserved;
  /* One line for the log. Any thread, any time. */
  void (*log)(const struct sy_host* host, int32_t level, const char* text);
  /* Why the call in hand fails; the last text counts. ctx: as passed to the call. */
  void (*fail)(void* ctx, const char* text);
  /* A setting of the plugin as text ("0.5", "yes", "red") into buffer[size], NUL-terminated. Gives its length without the
   * NUL, as it would be with room enough; -1: the manifest declares no such setting. Any time after init() began. */
  int64_t (*setting)(const struct sy_host* host, const char* key, char* buffer, uint64_t size);
  /* n numbers in (0, 1) from a counter: the same for the same (seed, layer, token), on every machine and in every replay.
   * token: the index of the token in its sequence; add a constant to layer for a second, independent row. */
  void (*random)(uint64_t seed, uint32_t layer, uint64_t token, uint32_t n, float* out);
  /* Whether the user stopped it; then return soon, with whatever code. */
  int32_t (*cancelled)(void* ctx);
  /* 0 to 1; also says that the call is alive. Of readers, writers and metrics. */
  void (*progress)(void* ctx, double fraction);
} sy_host;

/* ---- Gating schemes and logit edits ------------------------------------------------------------------------------ */

enum { SY_PHASE_TOGETHER = 0, SY_PHASE_ALONE = 1 }; /* several tokens run in one pass (a prompt), or one (generation) */

typedef struct sy_scheme_in {
  uint32_t struct_size;
  uint32_t tokens;          /* T: decisions asked for; 1 or more */
  uint32_t experts;         /* E */
  uint32_t k;               /* experts per token in force: the model's own, or the layer's top_k edit */
  uint32_t slots;           /* S: room per token in the output, as `max_slots` in the manifest says */
  uint32_t layer;           /* of the model, from 0 */
  uint32_t row;             /* routing row: ordinal among the routers, from 0 */
  uint32_t phase;           /* SY_PHASE_* */
  uint32_t sequence;        /* number of the sequence, for random(): mix it into the seed */
  uint32_t parameter_count;
  const double* parameters; /* [parameter_count] in the manifest's order; a boolean is 0 or 1, a choice its index from 0 */
  const float* logits;      /* [T, E] the router's output after the layer's edits, router bias in it; -inf: muted, not to be chosen */
  const int32_t* token_ids; /* [T] */
  const uint64_t* positions;/* [T] index of the token in its sequence, from 0 */
  const float* hidden;      /* [T, hidden_width] what the router read, or NULL where SY_NEEDS_HIDDEN was not asked for */
  uint32_t hidden_width;    /* d; 0 where hidden is NULL */
  uint32_t state_bytes;     /* B as sy_scheme declares */
  uint8_t* state;           /* [T, B] or NULL: zero before the first layer of a token; what a layer leaves the next one finds.
                               Aligned to 4. Its life is one forward pass of the token. */
} sy_scheme_in;

enum { SY_SLOT_ROUTED = 0, SY_SLOT_FORCED = 1 }; /* flags of a slot */

/* All of the caller. Slots of one token name different experts, none of them muted. */
typedef struct sy_scheme_out {
  uint32_t struct_size;
  uint32_t reserved;
  uint32_t* count; /* [T] slots used, 1 to S */
  int32_t* id;     /* [T, S] expert, 0 to E - 1 */
  float* weight;   /* [T, S] finite; what the expert's output is multiplied by. The model's routed scale is multiplied in behind it. */
  uint8_t* flags;  /* [T, S] SY_SLOT_*; 0 when called */
} sy_scheme_out;

enum { SY_NEEDS_HIDDEN = 1 }; /* sy_scheme::needs, sy_edit::needs */

/* Called for every token and layer on a thread of the engine: no allocation, no locks, no input or output. Budget: 50 us a
 * layer while one token runs alone. Failure, a number that is not finite, an id out of range or named twice: the model's
 * own router decides for that token and layer, the frame is flagged, the plugin named. */
typedef struct sy_scheme {
  uint32_t struct_size;
  uint32_t needs;       /* SY_NEEDS_* */
  uint32_t state_bytes; /* B per token, a multiple of 4, 4096 at most; 0: none */
  uint32_t reserved;
  int (*route)(void* self, const sy_scheme_in* in, sy_scheme_out* out, void* ctx);
  /* The same rule for a device, or NULL: CUDA C++ text, 262144 bytes at most, that lives as long as the plugin and defines
   *   SY_DEVICE unsigned sy_device_route(const sy_device_in* in, int* id, float* weight, unsigned char* flags)
   * switchyard/device.h says, line by line, what it gets and gives. Not for a scheme that needs hidden or state.
   * route() stays the definition: where the cuda backend finds NVRTC it compiles the text, compares it with route() on random
   * logits (ids and flags the same, weights to 1e-6 of their size) and runs it only then; anywhere else, and while edits of
   * logits are in force, route() decides. On the device a wild pointer or an endless loop ends the use of the device. */
  const char* device_source;
} sy_scheme;

/* Changes logits and leaves the decision to the model's own router. Pure: the same for the same input. -inf stays -inf;
 * what is written must be finite or -inf. */
typedef struct sy_edit {
  uint32_t struct_size;
  uint32_t needs;
  int (*apply)(void* self, const sy_scheme_in* in, float* logits, void* ctx); /* logits: [T, E], a copy of in->logits */
} sy_edit;

/* ---- Metrics ------------------------------------------------------------------------------------------------------ */

typedef struct sy_trace_shape {
  uint32_t struct_size;
  uint32_t rows;     /* routing rows */
  uint32_t experts;  /* E, the largest of any row */
  uint32_t k;        /* slots per token */
  uint64_t tokens;
  uint64_t sequences;
  const uint32_t* layers; /* [rows] model layer of each */
} sy_trace_shape;

/* Consecutive tokens of one row. Arrays that the trace does not hold, or that the manifest does not ask for, are NULL. */
typedef struct sy_block {
  uint32_t struct_size;
  uint32_t row, layer;
  uint32_t tokens;          /* N */
  uint32_t experts, k;
  uint64_t first_token;     /* index in the whole trace */
  const int32_t* id;        /* [N, k] falling weight, then lower id; -1: empty */
  const float* weight;      /* [N, k] as applied */
  const float* logits;      /* [N, E] raw */
  const float* entropy;     /* [N] nats */
  const float* topk_mass;   /* [N] */
  const float* margin;      /* [N] */
  const float* lse;         /* [N] */
  const int32_t* token_ids; /* [N] */
  const uint32_t* position; /* [N] in its sequence */
  const uint32_t* sequence; /* [N] */
  const uint8_t* mask;      /* [N] 1 counts; NULL: all count */
} sy_block;

/* Elements of arrays: the next one lies struct_size bytes behind, the same for all of one array. */
typedef struct sy_column {
  uint32_t struct_size;
  uint32_t reserved;
  const char* name; /* "layer", "keep_rate": snake_case, its own in the table */
  const char* unit; /* "nat", "share", "" */
} sy_column;

typedef struct sy_table {
  uint32_t struct_size;
  uint32_t column_count; /* 1 to 64 */
  const char* name;
  const sy_column* columns;
} sy_table;

/* In a process of its own with limits. One state per routing row, made by create(), merged in the order of rows, so that
 * blocks may come in any order and from any share of the trace. */
typedef struct sy_metric {
  uint32_t struct_size;
  uint32_t table_count; /* 1 to 16 */
  const sy_table* tables;
  void* (*create)(void* self, const sy_trace_shape* shape, void* ctx); /* NULL: failed */
  int (*feed)(void* state, const sy_block* block, void* ctx);
  int (*merge)(void* into, const void* from, void* ctx); /* from stays as it is */
  uint64_t (*rows)(void* state, uint32_t table);         /* of the result, 1,000,000 at most */
  int (*result)(void* state, uint32_t table, double* cells, void* ctx); /* cells: [rows, column_count]; NaN: an empty cell */
  void (*destroy)(void* state);
} sy_metric;

/* ---- Readers and writers ------------------------------------------------------------------------------------------ */

/* The files of a dump: one, or those of a folder. No path leaves the program; bytes come through read(). */
typedef struct sy_source {
  uint32_t struct_size;
  uint32_t files;
  const char* (*name)(const struct sy_source* source, uint32_t file);
  uint64_t (*size)(const struct sy_source* source, uint32_t file);
  /* Up to count bytes from offset into buffer; gives how many, 0 at the end, -1 where the file cannot be read. */
  int64_t (*read)(const struct sy_source* source, uint32_t file, uint64_t offset, void* buffer, uint64_t count);
} sy_source;

/* Some consecutive tokens of one sequence. */
typedef struct sy_tokens {
  uint32_t struct_size;
  uint32_t layers, tokens, slots;
  const int32_t* layer;       /* [layers] the model's number of each row, none twice */
  const int32_t* id;          /* [layers, tokens, slots]; -1: empty */
  const double* weight;       /* the same, or NULL */
  const float* logits;        /* [layers, tokens, logit_experts], or NULL */
  uint32_t logit_experts;
  const uint32_t* token_ids;  /* [tokens], or NULL */
  const char* where;          /* "dump.txt:12": for messages */
} sy_tokens;

/* Every block is checked. A call that gives anything but 0 has ended the import: return. */
typedef struct sy_sink {
  uint32_t struct_size;
  uint32_t reserved;
  int (*begin_sequence)(const struct sy_sink* sink, uint32_t prompt_tokens, const char* domain); /* 0, "": not told */
  int (*tokens)(const struct sy_sink* sink, const sy_tokens* piece);
  int (*experts)(const struct sy_sink* sink, uint32_t experts); /* E, where the dump states it */
  int (*model)(const struct sy_sink* sink, const char* name);
  int (*ranked)(const struct sy_sink* sink); /* slots are by falling weight though no weights are there */
  int (*note)(const struct sy_sink* sink, const char* text);
} sy_sink;

/* In a process of its own with limits: no network, no files, 4 GB, 60 s of CPU time for a step. read() runs twice over the
 * same bytes, once to measure and once to write. */
typedef struct sy_reader {
  uint32_t struct_size;
  uint32_t reserved;
  /* How sure it is that a file is of its format, 0 to 100, from the name and the first `size` bytes (4096 at most). */
  int (*probe)(void* self, const char* name, const void* head, uint64_t size);
  int (*read)(void* self, const sy_source* source, const sy_sink* sink, void* ctx);
} sy_reader;

enum { SY_FIELD_ID = 0, SY_FIELD_WEIGHT = 1, SY_FIELD_LOGITS = 2, SY_FIELD_TOKEN_ID = 3, SY_FIELD_POSITION = 4, SY_FIELD_SEQUENCE = 5,
       SY_FIELD_ENTROPY = 6, SY_FIELD_TOPK_MASS = 7, SY_FIELD_MARGIN = 8, SY_FIELD_LSE = 9 };

typedef struct sy_trace {
  uint32_t struct_size;
  uint32_t rows, experts, k;
  uint64_t tokens, sequences;
  const uint32_t* layers; /* [rows] */
  /* Values of `count` tokens from `first` (of a row, where the field has rows) into buffer. Types and shapes: ID int32
   * [count, k], -1 empty; WEIGHT float [count, k]; LOGITS float [count, E]; TOKEN_ID int32 [count]; POSITION and SEQUENCE
   * uint32 [count]; ENTROPY (nats), TOPK_MASS (share), MARGIN and LSE (as in sy_block) float [count]. Gives the bytes
   * written, -1 where the trace does not hold the field, `bytes` is too small, or more than 32 Mi values are asked for at
   * once. */
  int64_t (*read)(const struct sy_trace* trace, uint32_t field, uint32_t row, uint64_t first, uint64_t count, void* buffer, uint64_t bytes);
  int (*holds)(const struct sy_trace* trace, uint32_t field); /* 1: it does */
} sy_trace;

typedef struct sy_output {
  uint32_t struct_size;
  uint32_t reserved;
  int (*write)(const struct sy_output* out, const void* bytes, uint64_t count); /* appends to the one file of the export */
} sy_output;

/* In a process of its own, as readers are. The file appears when write() gave 0, whole, or not at all. */
typedef struct sy_writer {
  uint32_t struct_size;
  uint32_t reserved;
  int (*write)(void* self, const sy_trace* trace, const sy_output* out, void* ctx);
} sy_writer;

/* ---- Report sections ---------------------------------------------------------------------------------------------- */

/* What the numbers of a chart are drawn as. The program draws; a section gives values alone. */
enum { SY_CHART_HEAT_MAP = 0, /* rows x columns, each value a colour */
       SY_CHART_MATRIX = 1,   /* the same with square cells: both axes are of one kind */
       SY_CHART_BARS = 2,     /* columns across, a bar for each row beside the others */
       SY_CHART_LINES = 3,    /* columns across, a line for each row, with a band where low and high are given */
       SY_CHART_RIDGE = 4,    /* a row is a distribution over the columns (bins) */
       SY_CHART_STRIP = 5,    /* columns are tokens in reading order, coloured by the first row */
       SY_CHART_FLOW = 6,     /* links between experts of neighbouring columns (layers); no values */
       SY_CHART_POINTS = 7 }; /* an effect across, -log10 of its corrected p up; no values */

/* A table of a report. Texts in it, and in all that follows, may hold anything: they are escaped wherever they are shown. */
typedef struct sy_report_table {
  uint32_t struct_size;
  uint32_t column_count;     /* 1 to 64 */
  uint64_t row_count;        /* 1,000 at most; what is longer is a chart, or a metric */
  const char* name;          /* of its files: letters, digits, - and _; 60 bytes at most */
  const char* caption;       /* one line, 600 bytes at most; the program puts behind it whose numbers they are */
  const sy_column* columns;  /* [column_count]; shown as "name (unit)" */
  const double* numbers;     /* [row_count, column_count]; finite, or NaN: an empty cell */
  const char* const* texts;  /* [row_count, column_count] cells that are words; NULL among them: the number; or NULL: none */
} sy_report_table;

typedef struct sy_report_link { /* of a flow; see "elements of arrays" above */
  uint32_t struct_size;
  uint32_t column;   /* from this column to the next */
  uint32_t from, to; /* experts */
  double value;      /* finite; its width */
} sy_report_link;

typedef struct sy_report_point {
  uint32_t struct_size;
  uint32_t reserved;
  const char* name;
  double effect; /* finite */
  double q;      /* corrected p, 0 to 1 */
} sy_report_point;

typedef struct sy_report_chart {
  uint32_t struct_size;
  uint32_t kind;                   /* SY_CHART_* */
  uint32_t rows, columns;          /* 65,536 cells at most */
  const char* name;                /* of its files: letters, digits, - and _; 60 bytes at most */
  const char* title;               /* one line, 300 bytes at most */
  const char* caption;             /* one line, 600 bytes at most; as a table's */
  const char* quantity;            /* what the values are, with the unit where there is one */
  const char* row_title;           /* of the axis, NULL: none; likewise below */
  const char* column_title;
  const char* const* row_names;    /* [rows], 200 bytes each at most */
  const char* const* column_names; /* [columns] */
  const double* values;            /* [rows, columns]; finite, or NaN: not defined. NULL of a flow and of points. */
  const double* low;               /* [rows, columns] the lower end of bands and error bars, or NULL */
  const double* high;              /* the upper end; both or none */
  const uint8_t* marked;           /* [rows, columns] 1: hatched; or NULL */
  const char* mark_title;          /* what the hatching means */
  double middle;                   /* a diverging map with this in its middle; NaN: none */
  double baseline;                 /* a dashed line across bars and lines; NaN: none */
  const char* baseline_title;
  uint32_t categories;             /* 1: values are whole numbers that name something */
  uint32_t link_count;             /* 4,096 at most */
  const sy_report_link* links;     /* [link_count] of a flow; columns name the layers */
  const sy_report_point* points;   /* [point_count] */
  uint32_t point_count;            /* 4,096 at most */
  uint32_t reserved;
  const char *side_a, *side_b;     /* of points: who has more where the effect is above and below 0 */
} sy_report_chart;

/* Takes the section's parts in their order, 64 at most. What is given is copied and checked; a call that gives anything
 * but 0 has ended the section: return. */
typedef struct sy_report_out {
  uint32_t struct_size;
  uint32_t reserved;
  int (*heading)(const struct sy_report_out* out, const char* text); /* one line, in the place of the manifest's title */
  int (*text)(const struct sy_report_out* out, const char* markdown); /* paragraphs: headings, lists, emphasis, code, links; HTML stays text; 64 KiB at most */
  int (*table)(const struct sy_report_out* out, const sy_report_table* table);
  int (*chart)(const struct sy_report_out* out, const sy_report_chart* chart);
} sy_report_out;

typedef struct sy_report_in {
  uint32_t struct_size;
  uint32_t parameter_count;
  const double* parameters; /* [parameter_count] in the manifest's order; a boolean is 0 or 1, a choice its index from 0 */
  const sy_trace* trace;    /* as an exporter has it */
} sy_report_in;

/* In a process of its own, as exporters are. Same input, same section: a report that is made again is compared number by
 * number. A section that fails is named in the report; the rest of it stays whole. */
typedef struct sy_report_section {
  uint32_t struct_size;
  uint32_t reserved;
  int (*write)(void* self, const sy_report_in* in, const sy_report_out* out, void* ctx);
} sy_report_section;

/* ---- Live views (view contract) ----------------------------------------------------------------------------------- */

typedef struct sy_view_token {
  uint32_t struct_size;
  int32_t token_id;
  uint32_t sequence, position;
  uint32_t phase;         /* 0 prompt, 1 generated */
  uint32_t used;          /* slots used in the row */
  uint32_t slots;
  const char* text;       /* printable */
  const int32_t* id;      /* [slots] -1: empty */
  const float* weight;    /* [slots] or NULL */
  const float* logits;    /* [E] raw, or NULL */
  float entropy, margin, topk_mass, lse; /* of the row; nats, logit units, share, nats */
  uint32_t flags;         /* bit 0: NaN logits were replaced, bit 1: the native gate stood in for a scheme */
} sy_view_token;

enum { SY_COLOR_TEXT = 0, SY_COLOR_MUTED = 1, SY_COLOR_ACCENT = 2, SY_COLOR_GRID = 3, SY_COLOR_WARNING = 4, SY_COLOR_BACKGROUND = 5,
       SY_COLOR_FIRST_CATEGORY = 16 }; /* 16 + n: colour of category n, told apart by colour-blind people; the program's choice */

typedef struct sy_view_in {
  uint32_t struct_size;
  uint32_t rows, experts, k;    /* 0 rows: no model is open */
  uint64_t tokens;              /* of the sequence */
  uint64_t shown;               /* index of the shown token; follows generation or the time cursor */
  uint32_t row;                 /* selection */
  int32_t expert;               /* selection; -1: none */
  float width, height;          /* of the view, logical pixels */
  float line;                   /* height of a line of text, logical pixels; measure everything in it */
  const uint32_t* layers;       /* [rows] */
  /* Facts of one token in one row; out->struct_size is the caller's. 0: done; else there is no such token. Pointers in it
   * are valid until draw() returns. */
  int (*token)(const struct sy_view_in* in, uint64_t index, uint32_t row, sy_view_token* out);
} sy_view_in;

/* What a view draws with. Logical pixels from the view's upper left corner. Colours are SY_COLOR_*. */
typedef struct sy_draw {
  uint32_t struct_size;
  uint32_t reserved;
  void (*text)(const struct sy_draw* draw, float x, float y, int32_t color, const char* text);
  float (*text_width)(const struct sy_draw* draw, const char* text);
  void (*line)(const struct sy_draw* draw, float x0, float y0, float x1, float y1, int32_t color, float width);
  void (*polyline)(const struct sy_draw* draw, const float* xy, uint32_t points, int32_t color, float width); /* xy: [points, 2] */
  void (*rect)(const struct sy_draw* draw, float x0, float y0, float x1, float y1, int32_t color, int32_t filled);
  /* A picture of rows x cols values, low and high at the ends of the program's sequential colour map. */
  void (*cells)(const struct sy_draw* draw, float x0, float y0, float x1, float y1, const float* values, uint32_t rows, uint32_t cols, float low, float high);
  /* Upright bars of equal width from zero at the lower edge; high: the value at the upper edge. */
  void (*bars)(const struct sy_draw* draw, float x0, float y0, float x1, float y1, const float* values, uint32_t count, float high, int32_t color);
  /* Axis below (vertical 0) or left of (1) the rectangle, with round ticks and its title. */
  void (*axis)(const struct sy_draw* draw, float x0, float y0, float x1, float y1, int32_t vertical, float low, float high, const char* title);
  int (*button)(const struct sy_draw* draw, float x, float y, const char* label); /* 1: pressed now */
  float (*slider)(const struct sy_draw* draw, float x, float y, float width, const char* label, float value, float low, float high); /* the value after it */
  /* Names what was drawn in a rectangle: tooltips, keys, screen readers and tests read it. id: stable, unique in the view.
   * 1: it was clicked now. */
  int (*item)(const struct sy_draw* draw, const char* id, const char* label, double value, const char* unit, float x0, float y0, float x1, float y1);
  void (*clip)(const struct sy_draw* draw, float x0, float y0, float x1, float y1); /* until unclip() */
  void (*unclip)(const struct sy_draw* draw);
  /* Lines that the wheel has scrolled down, kept by the program between 0 and `lines` - `visible`. */
  float (*scroll)(const struct sy_draw* draw, float lines, float visible);
  /* Commands, carried out after draw(). */
  void (*select)(const struct sy_draw* draw, uint32_t row, int32_t expert);
  void (*show_token)(const struct sy_draw* draw, uint64_t index);
  void (*edit)(const struct sy_draw* draw, const char* json); /* one edit as in edit scripts: {"kind":"mute","layer":3,"expert":5} */
} sy_draw;

/* Rows of the table that shows the same numbers. */
typedef struct sy_rows {
  uint32_t struct_size;
  uint32_t reserved;
  void (*column)(const struct sy_rows* rows, const char* name, const char* unit); /* all of them first */
  void (*text)(const struct sy_rows* rows, const char* cell);                     /* the next cell of the row */
  void (*number)(const struct sy_rows* rows, double cell);
  void (*end)(const struct sy_rows* rows);                                        /* of a row; 100,000 at most */
} sy_rows;

/* On the window's thread. Budget: 4 ms a repaint; five slow ones in a row switch the view off. */
typedef struct sy_view {
  uint32_t struct_size;
  uint32_t reserved;
  int (*draw)(void* self, const sy_view_in* in, const sy_draw* draw, void* ctx);
  int (*table)(void* self, const sy_view_in* in, const sy_rows* rows, void* ctx);
} sy_view;

/* ---- The plugin ---------------------------------------------------------------------------------------------------- */

typedef struct sy_plugin {
  uint32_t struct_size;
  uint32_t magic;         /* SY_MAGIC */
  uint32_t compiler_tag;  /* SY_COMPILER_TAG */
  uint32_t core_contract; /* SY_CORE_CONTRACT of the header that it was built with */
  uint32_t view_contract; /* SY_VIEW_CONTRACT, or 0 where it has no view */
  uint32_t reserved;
  /* Once, before anything else. *self is handed to every later call. host lives as long as the plugin. */
  int (*init)(const sy_host* host, void** self, void* ctx);
  void (*shutdown)(void* self); /* at the end of the program; the library is never unloaded */
  /* By the id in the manifest; NULL: unknown. A function may be NULL where the plugin has nothing of the kind. What they
   * give lives as long as the plugin. */
  const sy_scheme* (*scheme)(void* self, const char* id);
  const sy_edit* (*edit)(void* self, const char* id);
  const sy_metric* (*metric)(void* self, const char* id);
  const sy_view* (*view)(void* self, const char* id);
  const sy_reader* (*reader)(void* self, const char* id);
  const sy_writer* (*writer)(void* self, const char* id);
  const sy_report_section* (*report_section)(void* self, const char* id);
} sy_plugin;

/* The only symbol that a plugin exports. Must do nothing but give the address of its table. */
SY_EXPORT const sy_plugin* switchyard_plugin(void);
typedef const sy_plugin* (*sy_entry)(void);

/* Whether a struct of size `size` holds the field: `SY_HAS(in->struct_size, sy_scheme_in, state)`. */
#define SY_HAS(size, type, field) ((size) >= (uint32_t)((const char*)&((const type*)4096)->field - (const char*)4096 + sizeof(((const type*)4096)->field)))

#ifdef __cplusplus
}
#endif
#endif
