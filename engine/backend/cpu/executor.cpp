// The walk through the layers, matrix products and logits. See executor.h.
#include "engine/backend/cpu/executor.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace switchyard::cpu {
namespace {

// Below this a barrier costs more than the second thread gains (measured: 0.2 us a barrier, about
// 50 bytes of cached weights per ns and thread).
constexpr int64_t kAloneBytes = 24 * 1024;
constexpr int kPartsPerThread = 4;   // so that a thread held up by other programs delays little
constexpr int64_t kRowMultiple = 8;  // rows of the one-token tile

int64_t stored_size(const Matrix& matrix) {
  return matrix.rows * matrix.cols * stored_bytes(matrix.type);
}

}  // namespace

Result<void> Executor::run(const Chunk& chunk) {
  chunk_ = &chunk;
  count_ = static_cast<int>(chunk.tokens.size());
  position_ = chunk.cache->length();
  shape_workspace();
  prepare_ropes();
  embed();
  for (int layer = 0; layer < static_cast<int>(model_.layers.size()); ++layer) {
    if (chunk.task && chunk.task->cancelled())
      return fail(ErrorCode::kCancelled, "stopped before layer " + std::to_string(layer) + ".");
    attention(layer);
    feed_forward(layer);
  }
  write_logits();
  return {};
}

int Executor::parts_for(int64_t bytes) const {
  if (pool_.threads() == 1 || bytes < kAloneBytes) return 1;
  return static_cast<int>(std::min<int64_t>(int64_t(pool_.threads()) * kPartsPerThread, bytes / (kAloneBytes / 2)));
}

void Executor::shape_workspace() {
  int64_t qkv = 0, mixed = 0, experts = 0;
  for (const Layer& layer : model_.layers) {
    const Attention& attention = layer.attention;
    qkv = std::max(qkv, attention.query_cols() + 2 * attention.key_cols());
    mixed = std::max(mixed, attention.query_cols());
    experts = std::max(experts, int64_t(layer.ffn.router.experts));
  }
  hidden_.shape(count_, model_.hidden);
  normed_.shape(count_, model_.hidden);
  qkv_.shape(count_, qkv);
  mixed_.shape(count_, mixed);
  router_logits_.shape(count_, experts);
  const auto point = [&](auto& pointers, Rows& rows) {
    pointers.resize(count_);
    for (int token = 0; token < count_; ++token) pointers[token] = rows[token];
  };
  point(normed_in_, normed_);
  point(mixed_in_, mixed_);
  point(hidden_out_, hidden_);
  point(router_out_, router_logits_);
  for (auto* out : {&q_out_, &k_out_, &v_out_}) out->resize(count_);
  ones_.assign(count_, 1.0f);

  workers_.resize(pool_.threads());
  for (WorkerSpace& space : workers_) {
    space.scores.reserve(size_t(kMaxQueries) * kKeyBlock);
    space.routing.reserve(size_t(experts) * 4);
  }
}

void Executor::embed() {
  const Matrix& table = model_.embedding;
  const int64_t row_bytes = table.cols * stored_bytes(table.type);
  for (int token = 0; token < count_; ++token)
    kernels_.load(table.data + chunk_->tokens[token] * row_bytes, table.type, hidden_[token], table.cols);
}

// The angle is a float product, as transformers computes it; its cosine is exact to a float.
void Executor::prepare_ropes() {
  cosines_.resize(model_.ropes.size());
  sines_.resize(model_.ropes.size());
  for (size_t i = 0; i < model_.ropes.size(); ++i) {
    const RopeSpec& rope = model_.ropes[i];
    const size_t pairs = size_t(rope.dims) / 2;
    cosines_[i].resize(count_ * pairs);
    sines_[i].resize(count_ * pairs);
    for (int token = 0; token < count_; ++token)
      for (size_t pair = 0; pair < pairs; ++pair) {
        const float angle = float(position_ + token) * rope.inv_freq[pair];
        cosines_[i][token * pairs + pair] = std::cos(angle) * rope.attention_factor;
        sines_[i][token * pairs + pair] = std::sin(angle) * rope.attention_factor;
      }
  }
}

void Executor::apply_norm(const Norm& norm, const float* x, float* out, int64_t n) const {
  kernels_.rms_norm(x, norm.weight.data(), norm.eps, out, n);
}

void Executor::normalise(const Norm& norm, const Rows& in, Rows& out, int first) {
  for_tokens(model_.hidden * int64_t(sizeof(float)), [&](int token, int) {
    if (token >= first) apply_norm(norm, in[token], out[token], model_.hidden);
  });
}

TokenRows Executor::rows_of(const std::vector<const float*>& in, const std::vector<float*>& out,
                            bool accumulate) const {
  return {count_, in.data(), out.data(), accumulate ? ones_.data() : nullptr};
}

// The rows of all products, end to end, shared out in even parts of whole tiles.
void Executor::multiply(std::span<const Product> products) {
  int64_t rows = 0, bytes = 0;
  for (const Product& product : products) {
    rows += product.matrix->rows;
    bytes += stored_size(*product.matrix) * ((product.tokens.count + 1) / 2);
  }
  const int parts = parts_for(bytes);
  pool_.run(parts, [&](int part, int) {
    RowRange left = split_rows(rows, parts, part, kRowMultiple);
    for (const Product& product : products) {
      const int64_t own = product.matrix->rows;
      const int64_t begin = std::max<int64_t>(left.begin, 0), end = std::min(left.end, own);
      if (begin < end) kernels_.dot_rows(*product.matrix, begin, end, product.tokens);
      left.begin -= own;
      left.end -= own;
    }
  });
}

void Executor::write_logits() {
  if (chunk_->rows == LogitRows::kNone) return;
  const int first = chunk_->rows == LogitRows::kLast ? count_ - 1 : 0;
  normalise(model_.final_norm, hidden_, normed_, first);
  std::vector<float*> out;
  for (int token = first; token < count_; ++token) out.push_back(chunk_->logits + size_t(token - first) * model_.vocab);
  const std::array products{Product{&model_.lm_head, {count_ - first, normed_in_.data() + first, out.data(), nullptr}}};
  multiply(products);
}

}  // namespace switchyard::cpu
