// See seq2seq.h.
#include "engine/model/families/seq2seq.h"

#include <algorithm>

#include <fmt/format.h>

#include "engine/model/families/blocks.h"

namespace switchyard {

void read_seq2seq_ids(PlanBuilder& builder, ModelPlan& plan, const Seq2SeqDefaults& defaults) {
  const int last = plan.vocab - 1;
  read_token_ids(builder, plan);
  if (plan.eos_ids.empty()) plan.eos_ids = {std::min<TokenId>(defaults.eos, last)};
  plan.padding_id = builder.count_or("pad_token_id", std::min<TokenId>(defaults.padding, last), last, 0);
  plan.decoder_start =
      builder.count_or("decoder_start_token_id", std::min<TokenId>(defaults.decoder_start, last), last, 0);
  if (builder.config().has("forced_bos_token_id"))
    plan.forced_bos = builder.count_or("forced_bos_token_id", 0, last, 0);
}

void seq2seq_embedding(PlanBuilder& builder, ModelPlan& plan, const Seq2SeqEmbedding& names) {
  const std::string why = fmt::format("vocab_size = {}, d_model = {}", plan.vocab, plan.hidden);
  const auto table = [&](std::initializer_list<std::string> candidates) {
    const auto* kept =
        std::find_if(candidates.begin(), candidates.end(), [&](const auto& name) { return builder.has(name + ".weight"); });
    return builder.matrix((kept == candidates.end() ? names.shared : *kept) + ".weight", plan.vocab, plan.hidden, why);
  };
  plan.tied = builder.flag_or("tie_word_embeddings", true);
  if (plan.tied) {
    plan.embedding = plan.lm_head = table({names.shared, names.decoder, names.encoder, "lm_head"});
  } else {
    plan.embedding = table({names.encoder, names.shared});
    const TensorRef decoder = table({names.decoder, names.shared});
    if (decoder.name != plan.embedding.name) plan.decoder_embedding = decoder;
    plan.lm_head =
        builder.matrix("lm_head.weight", plan.vocab, plan.hidden, why + ", tie_word_embeddings = false");
  }
  plan.dtype = plan.embedding.dtype;
}

void check_expert_count(PlanBuilder& builder, int layers, int experts) {
  if (int64_t{layers} * experts > kMaxExpertsInAll)
    builder.refuse_config(fmt::format("has {} layers of {} experts, the limit is {} experts in all", layers, experts,
                                      kMaxExpertsInAll));
}

}  // namespace switchyard
