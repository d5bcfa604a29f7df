// In which pieces the session runs a prompt: an encoder's tokens at once and the decoder's start behind them, and all
// of a prompt at once where the model couples the tokens that run together.
#include <gtest/gtest.h>

#include "tests/runtime/hash_session.h"

namespace switchyard::test {
namespace {

Checkpoint coupling_checkpoint() {
  Checkpoint checkpoint = hash_checkpoint();
  for (LayerPlan& layer : checkpoint.plan.layers)
    if (MoeSpec* moe = layer.find<MoeSpec>()) {
      moe->router.capacity = Capacity::kPerSequence;
      moe->router.capacity_value = 64;
    }
  return checkpoint;
}

Checkpoint encoder_decoder_checkpoint() {
  Checkpoint checkpoint = coupling_checkpoint();
  checkpoint.plan.encoder_layers = 1;
  checkpoint.plan.decoder_start = 3;
  return checkpoint;
}

TEST(SessionPieces, ADecoderOnlyPromptRunsInChunks) {
  HashSession run;
  run->send(Start{prompt_of(300), 1});
  run->wait();
  EXPECT_EQ(run.controls->forwards, 2u);  // 256 and 44
}

TEST(SessionPieces, ACouplingPromptRunsAtOnceAndAnEditInsideItWaitsForItsEnd) {
  HashSession run({.ignore_eos = true}, coupling_checkpoint());
  ASSERT_TRUE(run->send(EditCommand{Temperature{LayerSet{}, 2.0f}, 100}));
  run->send(Start{prompt_of(300), 3});
  const auto snapshot = run->wait();
  EXPECT_EQ(run.controls->forwards, 3u);  // the prompt, then two of the three tokens
  ASSERT_EQ(snapshot->epochs.size(), 2u);
  EXPECT_EQ(snapshot->epochs.back().first_token, 300u);
}

TEST(SessionPieces, AnEncoderTakesThePromptAndTheDecoderItsStart) {
  HashSession run({.ignore_eos = true}, encoder_decoder_checkpoint());
  run->send(Start{prompt_of(300), 3});
  const auto snapshot = run->wait();
  EXPECT_EQ(run.controls->forwards, 4u);  // encoder, start, two tokens
  EXPECT_EQ(snapshot->encoder_tokens, 300u);
  ASSERT_EQ(snapshot->prompt_ids.size(), 301u);
  EXPECT_EQ(snapshot->prompt_ids.back(), 3);
  const auto frames = run.frames();
  ASSERT_EQ(frames.size(), 303u);
  EXPECT_EQ(frames[299]->header().position, 299u);
  EXPECT_EQ(frames[300]->header().position, 0u);  // the decoder counts anew
  EXPECT_EQ(frames[302]->header().position, 2u);
  EXPECT_EQ(frames[300]->header().phase, Phase::kPrefill);
  EXPECT_EQ(frames[301]->header().phase, Phase::kDecode);

  run->send(Start{prompt_of(5), 1});  // anew: nothing of the first is left
  EXPECT_EQ(run->wait()->encoder_tokens, 5u);
}

TEST(SessionPieces, AForcedFirstTokenStandsWhateverTheLogits) {
  Checkpoint checkpoint = encoder_decoder_checkpoint();
  checkpoint.plan.forced_bos = 9;
  HashSession run({.ignore_eos = true}, checkpoint);
  run->send(Start{prompt_of(5), 3});
  const auto forced = run->wait()->generated_ids;
  ASSERT_EQ(forced.size(), 3u);
  EXPECT_EQ(forced[0], 9);
}

TEST(SessionPieces, APromptThatLeavesNoRoomForTheStartIsRefused) {
  HashSession run({.context = 8, .ignore_eos = true}, encoder_decoder_checkpoint());
  run->send(Start{prompt_of(8), 1});
  EXPECT_TRUE(run->wait()->error);
  run->send(Start{prompt_of(7), 1});
  EXPECT_FALSE(run->wait()->error);
}

}  // namespace
}  // namespace switchyard::test
