// Token texts: nothing invisible, nothing lost, characters over several tokens appear once.
#include "app/session/token_text.h"

#include <map>

#include <gtest/gtest.h>

#include "app/session/edits_in_force.h"
#include "app/session/token_facts.h"
#include "engine/tokenizer/decoder.h"

namespace switchyard {
namespace {

// A tokenizer whose tokens are given byte strings.
class ByteTokens : public Tokenizer {
 public:
  explicit ByteTokens(std::map<TokenId, std::string> tokens) : tokens_(std::move(tokens)) {}
  std::string_view kind() const override { return "bytes"; }
  int vocab_size() const override { return int(tokens_.size()); }
  Result<std::vector<TokenId>> encode(std::string_view, bool) const override { return std::vector<TokenId>{}; }
  std::string decode(std::span<const TokenId>, bool) const override { return {}; }
  std::string bytes(TokenId id) const override { return tokens_.count(id) ? tokens_.at(id) : std::string(); }
  std::string piece(TokenId id) const override { return bytes(id); }
  bool knows(TokenId id) const override { return tokens_.count(id) > 0; }
  std::optional<TokenId> find(std::string_view) const override { return std::nullopt; }
  bool is_special(TokenId id) const override { return id == 99; }
  std::unique_ptr<DecodeStream> stream() const override { return nullptr; }

 private:
  std::map<TokenId, std::string> tokens_;
};

TokenTextBuilder builder(std::map<TokenId, std::string> tokens) {
  return TokenTextBuilder(std::make_shared<ByteTokens>(std::move(tokens)));
}

TEST(TokenText, CharacterOverThreeTokensAppearsWithTheLast) {
  auto texts = builder({{1, "\xE3"}, {2, "\x81"}, {3, "\x93!"}});  // U+3053, then "!"
  const TokenText first = texts.push(1);
  EXPECT_EQ(first.text, "");
  EXPECT_EQ(first.printable, "<E3>");
  EXPECT_EQ(texts.push(2).printable, "<81>");
  const TokenText last = texts.push(3);
  EXPECT_EQ(last.text, "こ!");
  EXPECT_EQ(last.printable, "こ!");
}

TEST(TokenText, InvalidBytesBecomeOneReplacementEach) {
  auto texts = builder({{1, "a\xFFz"}, {2, "\xC3"}, {3, "b"}});
  EXPECT_EQ(texts.push(1).text, "a\uFFFDz");
  EXPECT_EQ(texts.push(2).text, "");
  EXPECT_EQ(texts.push(3).text, "\uFFFDb");
}

TEST(TokenText, SpecialTokenShowsItsSpellingAndEndsAnUnfinishedCharacter) {
  auto texts = builder({{1, "\xE3"}, {99, "<|end|>"}});
  texts.push(1);
  EXPECT_EQ(texts.push(99).text, "\uFFFD<|end|>");
}

TEST(TokenText, NewlineStaysForLayoutAndIsASymbolOnOneLine) {
  auto texts = builder({{1, "x\n\ty"}});
  const TokenText text = texts.push(1);
  EXPECT_EQ(text.text, "x\n⇥y");
  EXPECT_EQ(text.printable, "x↵⇥y");
}

// CVE-2021-42574: characters that turn or hide text are shown as their code point.
TEST(TokenText, InvisibleAndTurningCharactersShowTheirCodePoint) {
  EXPECT_EQ(printable("a\u202Eb"), "a<U+202E>b");
  EXPECT_EQ(printable("\u200B"), "<U+200B>");
  EXPECT_EQ(printable("\uFEFF"), "<U+FEFF>");
  EXPECT_EQ(printable("\x1B[31m"), "␛[31m");
  EXPECT_EQ(printable("\x7F"), "␡");
}

TEST(TokenText, WithoutTokenizerTheNumberIsShown) {
  TokenTextBuilder texts(nullptr);
  EXPECT_EQ(texts.push(42).printable, "#42");
}

RoutingFrame small_frame() {
  RoutingFrame frame(2, 4, 2, CaptureLevel::kWeights);
  frame.header().token_index = 7;
  Decision decision;
  decision.k_used = 2;
  decision.changed = 1;
  decision.stats = {1.25f, 0.75f, 0.5f, 2.0f};
  const ExpertId ids[] = {3, 1};
  const float weights[] = {0.4f, 0.6f};
  const SlotKind kinds[] = {SlotKind::kRouted, SlotKind::kRouted};
  frame.record(0, decision, ids, weights, kinds, {});
  decision.changed = 0;
  frame.record(1, decision, ids, weights, kinds, {});
  return frame;
}

TEST(TokenFacts, ReadTheFrame) {
  const RoutingFrame frame = small_frame();
  EXPECT_FLOAT_EQ(float(token_value(frame, TokenQuantity::kEntropy, 0)), 1.25f);
  EXPECT_FLOAT_EQ(float(token_value(frame, TokenQuantity::kMargin, 0)), 0.5f);
  EXPECT_EQ(token_value(frame, TokenQuantity::kExpert, 0), 1);   // the larger weight comes first in a frame
  EXPECT_EQ(token_value(frame, TokenQuantity::kChanged, 1), 1);  // over all layers
}

TEST(TokenFacts, SentenceNamesTokenLayerAndExperts) {
  const std::string text = token_sentence(small_frame(), " not", 0, 5);
  EXPECT_NE(text.find("token 7 “ not”"), std::string::npos) << text;
  EXPECT_NE(text.find("layer 5: experts 1, 3"), std::string::npos) << text;
  EXPECT_NE(text.find("changed by edits: 1"), std::string::npos) << text;
}

TEST(EditsInForce, ResetGivesOneEditPerKindThatDiffers) {
  LayerRecipe layer;
  layer.muted = {0, 1, 0, 0};
  layer.logit_bias = {0, 0, 0.5f, 0};
  layer.k = 2;
  const auto edits = reset_layer(&layer, {{3}});
  ASSERT_EQ(edits.size(), 3u);
  EXPECT_EQ(edits[0].edit, Edit(Unmute{LayerSet{{3}}, {1}}));
  EXPECT_EQ(edits[1].edit, Edit(Bias{LayerSet{{3}}, {2}, 0.0f}));
  EXPECT_EQ(edits[2].edit, Edit(TopK{LayerSet{{3}}, 0}));
  EXPECT_TRUE(reset_layer(nullptr, {{3}}).empty());
}

TEST(EditsInForce, ScriptLeavesUndoneEntriesOutAndKeepsTokens) {
  SessionSnapshot s;
  s.sequence = 2;
  const Mute mute{LayerSet{{1}}, {3}};
  s.history = std::vector<HistoryEntry>{{{{mute, std::nullopt}}, "", "user", true, 1, 1, 40},
                                        {{{mute, std::nullopt}}, "", "user", true, 2, 2, 12},
                                        {{{mute, 30}}, "", "script", false, 0, 2, 30},
                                        {{{mute, std::nullopt}}, "", "user", true, 0, 2, 20}};
  s.history_cursor = 3;
  const auto script = script_of(s);
  ASSERT_EQ(script.size(), 3u);
  EXPECT_FALSE(script[0].at_token);  // of an earlier sequence: in force from the start
  EXPECT_EQ(script[1].at_token, 12u);
  EXPECT_EQ(script[2].at_token, 30u);  // still waiting for it
}

}  // namespace
}  // namespace switchyard
