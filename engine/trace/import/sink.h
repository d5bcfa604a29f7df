// The two passes over a dump: Survey measures what is there, DumpWriter writes it. Used by import_trace(), in its
// child process.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "engine/trace/import/dump.h"
#include "engine/trace/writer.h"

namespace switchyard::dumps {

// What a dump holds, after one pass.
struct Measured {
  uint64_t tokens = 0, sequences = 0;
  std::vector<int> layers;  // that have a choice anywhere, ascending
  int empty_layers = 0;     // that the dump names and that have none: dense ones
  int largest_id = -1, slots = 0;
  int logit_experts = 0;
  std::vector<std::string> domains;  // of the sequences, in order of first use; empty: none has one
  bool weights = true, logits = true, token_ids = true, phases = true;  // of every piece
  bool sums_to_one = true;      // weights of every token, within 2 %
  bool probabilities = true;    // what stands for logits: none negative, every row sums to 1
  std::unique_ptr<DumpCounts> counts;
};

class Survey final : public DumpSink {
 public:
  using DumpSink::begin_sequence;
  explicit Survey(const ImportOptions& options) : DumpSink("Measuring the dump"), options_(options) {}
  Result<void> begin_sequence(uint32_t prompt_tokens, const std::string& domain) override;
  Result<void> tokens(const DumpTokens& piece) override;
  Result<void> counts(const DumpCounts& counts) override;
  // After the pass. kMalformed: nothing was in it.
  Result<Measured> finish(const std::string& shown);

 private:
  ImportOptions options_;
  Measured out_;
  std::set<int> named_, used_;
  bool in_tokens_ = false;
};

class DumpWriter final : public DumpSink {
 public:
  using DumpSink::begin_sequence;
  // layers: of the dump, in the order of the trace's rows.
  DumpWriter(TraceWriter& writer, const Measured& measured, const ImportOptions& options)
      : DumpSink("Writing the trace"), writer_(writer), measured_(measured), options_(options) {}
  Result<void> begin_sequence(uint32_t prompt_tokens, const std::string& domain) override;
  Result<void> tokens(const DumpTokens& piece) override;
  Result<void> counts(const DumpCounts& counts) override;
  Result<void> flush();

 private:
  // One token in trace order, appended to the buffers.
  void append(const DumpTokens& piece, uint32_t token);
  void append_row(const DumpTokens& piece, uint32_t token, int piece_row);

  TraceWriter& writer_;
  const Measured& measured_;
  ImportOptions options_;
  uint32_t prompt_tokens_ = 0;
  SequenceOrigin origin_;
  bool begun_ = false;
  uint64_t sequences_ = 0;
  uint32_t index_ = 0;  // of the next token in its sequence
  std::vector<std::vector<std::byte>> rows_;  // by field of the writer: token by token, in a token layer by layer
  uint64_t waiting_ = 0;
};

}  // namespace switchyard::dumps
