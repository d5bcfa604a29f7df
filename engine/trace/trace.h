// Our trace files, *.moetrace.h5: schema in specs/analyses.md section 2 and formats.md section 6.
// TraceRecorder writes on its own thread and survives a kill; TraceReader trusts committed rows only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/model/checkpoint.h"
#include "engine/routing/frame.h"
#include "engine/trace/sink.h"

namespace switchyard {

// What a trace says of the run, complete before the first row.
struct TraceHeader {
  std::vector<int> moe_layers;             // model layer of each row
  std::vector<std::string> router_names;   // of each row: "layer 3"
  std::vector<int> frame_rows;             // the row of a frame that each is; empty: the same
  int experts = 0;                         // largest of any row
  int experts_per_token = 0;               // the model's k, the starting width of the slot axis
  RouterSpec router;                       // of the first row: score_fn, renormalisation, scale
  CaptureLevel capture = CaptureLevel::kWeights;
  uint8_t taps = 0;                        // of Taps: measurements that are recorded beside the level's fields
  std::vector<std::string> domains;        // of the texts; empty: sequences have neither domain nor source id
  std::string model_config_json;           // /meta/model_config: name, revision, sha256 per file, dtype, config
  std::string edits_json;                  // /meta/edits: in force at the first token
  std::string run_json;                    // /meta/run: sampling, seed, backend, threads, tool version
  bool ranked = true;                      // false: nothing tells the order of a token's slots (id_order "unknown")
  // /model/router_weight: [rows, experts, width], zeros past a router's own experts and in rows that are not the model's
  // routers' first decisions. Width 0: not in the file. A file that is read gives the width alone.
  std::shared_ptr<const std::vector<float>> router_weight;
  int router_width = 0;
  std::vector<std::string> fields;         // datasets that are recorded; empty: all of the capture level
};
// Fills the model part from a checkpoint (hashes files; slow for large ones: a job).
Result<TraceHeader> make_trace_header(const Checkpoint& checkpoint, CaptureLevel capture, Task* task = nullptr);
// Puts the weights of the checkpoint's routers into the header. Refused where a router has no row for each expert, or
// routers read inputs of different widths.
Result<void> add_router_weights(TraceHeader& header, const Checkpoint& checkpoint, Task* task = nullptr);

struct RecorderOptions {
  bool overwrite = false;      // --force
  int chunk_rows = 1024;       // generation; 32,768 for evaluation
  double flush_seconds = 1.0;  // 0: per block only
  size_t ring_frames = 4096;
  bool block_when_full = true; // record mode; false: free-run, whole tokens dropped and counted
};

// The rows of a file are fixed. Where a recipe asks for rows that it lacks, the file is closed and the recording goes on
// in NAME-2.moetrace.h5, NAME-3 and so on, which hold the rows of both; a file in which nothing is yet gets them itself.
// The sequence that runs then begins anew in the next file, without a parent.
class TraceRecorder : public TraceSink {
 public:
  // path must end in .moetrace.h5; writes path + ".part" until close() renames it.
  static Result<std::shared_ptr<TraceRecorder>> create(const std::filesystem::path& path, const TraceHeader& header,
                                                       const RecorderOptions& options = {});
  virtual std::vector<std::filesystem::path> paths() const = 0;  // all of them, the one in hand last; any thread
  std::filesystem::path path() const { return paths().back(); }
  virtual uint64_t committed_tokens() const = 0;
};

struct TraceInfo {
  std::filesystem::path path;
  uint64_t tokens = 0;        // committed
  uint64_t sequences = 0;
  int layers = 0, experts = 0, top_k = 0;  // top_k: width of the slot axis
  std::vector<int> moe_layers;
  std::vector<std::string> router_names;  // of each row, as ModelPlan::row_name() wrote it; empty: a foreign file
  ScoreFn score = ScoreFn::kNone;         // of the first row
  CaptureLevel capture = CaptureLevel::kIds;
  bool ranked = true;         // slots stand by falling weight (id_order "weight_desc")
  bool complete = false;
  uint64_t dropped = 0;
  std::string model_config_json, edits_json, run_json;
  bool counts_only = false;  // a foreign dump of counts: no rows, and k and tokens are 0 where it does not tell them
  std::vector<std::string> fields;  // recorded datasets, "/routing/weight"
  std::vector<std::string> notes;   // what a reader should know: partial, reduced floats
};

// Sums over all tokens, [L, E] each; empty: the trace does not hold them.
struct TraceCounts {
  std::vector<uint64_t> count;       // chosen in any slot
  uint64_t passes = 0;               // F, forward passes that pass_count tells apart
  std::vector<uint32_t> pass_count;  // [F, L, E]
  std::vector<double> weight_sum;    // of the routing weights
  std::vector<double> ean_sum;       // of the norms of the expert's output
  std::vector<double> reap_sum;      // of weight times norm
  std::vector<float> max_act;        // largest activation
};

// What the header says, without a look at the rows.
Result<TraceInfo> read_trace_info(const std::filesystem::path& path);

// Rows [first, first + tokens) of one routing row, or of the token axis.
class TraceReader {
 public:
  // Refuses hostile files by name (caps: reliability.md section 4); a .part is opened through SWMR.
  // Every committed row is read once in a child process before (rehearsal.h): opening takes as long.
  static Result<std::unique_ptr<TraceReader>> open(const std::filesystem::path& path, Task* task = nullptr);
  virtual ~TraceReader() = default;
  virtual const TraceInfo& info() const = 0;

  virtual Result<std::vector<TokenId>> token_ids(uint64_t first, uint64_t tokens) const = 0;
  virtual Result<std::vector<uint32_t>> token_column(std::string_view name, uint64_t first, uint64_t tokens) const = 0; // position, phase, recipe_epoch
  virtual Result<std::vector<ExpertId>> expert_ids(int row, uint64_t first, uint64_t tokens) const = 0;     // [tokens, top_k]
  // What the router of the row before guessed for this one; row > 0. As stored: falling weight, empty slots kNoExpert.
  virtual Result<std::vector<ExpertId>> guessed_ids(int row, uint64_t first, uint64_t tokens) const = 0;    // [tokens, top_k]
  virtual Result<std::vector<float>> weights(int row, uint64_t first, uint64_t tokens) const = 0;           // [tokens, top_k]
  virtual Result<std::vector<uint8_t>> slot_kinds(int row, uint64_t first, uint64_t tokens) const = 0;      // [tokens, top_k] of SlotKind
  virtual Result<std::vector<float>> out_norms(int row, uint64_t first, uint64_t tokens) const = 0;         // [tokens, top_k]
  virtual Result<std::vector<float>> router_logits(int row, uint64_t first, uint64_t tokens) const = 0;     // [tokens, E]
  virtual Result<std::vector<float>> scalar(std::string_view name, int row, uint64_t first, uint64_t tokens) const = 0; // entropy, topk_mass, margin, lse, block_cos
  virtual Result<std::vector<float>> router_weight(int row) const = 0;  // [E, router width], see TraceHeader
  struct EpochRow { uint64_t first_token = 0; std::string json; };
  virtual Result<std::vector<EpochRow>> epochs() const = 0;
  virtual Result<std::vector<int64_t>> sequence_offsets() const = 0;  // [S + 1]
  virtual Result<std::vector<std::string>> domain_names() const = 0;    // empty: sequences have no domain
  virtual Result<std::vector<uint64_t>> sequence_sources() const = 0;   // [S]: source ids; empty without domains
  virtual Result<std::vector<uint16_t>> sequence_domains() const = 0;   // [S], indices into domain_names(); empty without
  virtual Result<TraceCounts> counts() const = 0;  // of a complete trace, as its /agg holds them
};

struct VerifyReport {
  TraceInfo info;
  std::vector<std::string> problems;  // empty: every committed block's checksum matches
};
Result<VerifyReport> verify_trace(const std::filesystem::path& path, Task* task = nullptr);

// Copies the committed rows of a killed or damaged file to a new, complete one and verifies it; the
// source stays untouched.
Result<VerifyReport> recover_trace(const std::filesystem::path& source, const std::filesystem::path& target,
                                   bool overwrite, Task* task = nullptr);

// Copies a sound, closed or unclosed recording to a compressed file: chunks of 32,768 rows, shuffle and deflate, and,
// with `half`, reals (but lse) as 16-bit floats, which a dataset attribute says. The result is verified; the source stays.
Result<VerifyReport> pack_trace(const std::filesystem::path& source, const std::filesystem::path& target, bool half,
                                bool overwrite, Task* task = nullptr);

}  // namespace switchyard
