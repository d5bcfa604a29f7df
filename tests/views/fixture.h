// A small run made by hand for the tests of the views: generated logits, routed by engine/routing, with
// three edits; the commands that views send are kept. Numbers depend on nothing but the shape given.
#pragma once

#include <memory>
#include <vector>

#include "views/host/stage.h"
#include "views/view.h"

namespace switchyard {

struct FixtureShape {
  int layers = 8, experts = 32, k = 4;
  int first_layer = 0;  // model layer of row 0; rows are every second layer when `sparse`
  bool sparse = false;
  int prompt = 50;
};

class Fixture {
 public:
  explicit Fixture(FixtureShape shape = {});

  void add_tokens(int count);
  void add_token(const std::vector<std::vector<float>>& logits);  // [layers][E]
  void edit(const Edit& edit);                                    // in force from the next token
  void shadow(std::vector<ShadowRecipe> recipes);                 // compared on all tokens there are
  void serial() { ++data.serial; }
  ViewSource source();

  // 75 tokens as in the design's drawing: a prompt of 50 and 25 generated, with a mute, a bias and a top-k edit; beside
  // it two recipes that are only looked at.
  static std::unique_ptr<Fixture> with_edits(FixtureShape shape = {});

  // MT1 of specs/analyses.md, section 0: 3 layers, 4 experts, k = 2, 16 tokens; its numbers are known by hand.
  static std::unique_ptr<Fixture> mt1();

  FixtureShape shape;
  ModelPlan plan;
  RunData data;
  Selection selection;
  TimeCursor cursor;
  ViewCommands commands;
  const Theme* theme = &dark_theme();

  // What the views sent.
  std::vector<Selection> selections;
  std::vector<TimeCursor> cursors;
  std::vector<EditCommand> edits;
  std::vector<std::vector<EditCommand>> batches;
  std::vector<std::string> actions;
  std::vector<size_t> removed_shadows;
  bool obey = true;  // selections and cursors take effect at once, as in the app

 private:
  void recount();
  float next();  // in [0, 1)
  std::shared_ptr<SessionSnapshot> snapshot_ = std::make_shared<SessionSnapshot>();
  std::unique_ptr<Load> load_all_, load_window_;
  std::unique_ptr<Affinity> affinity_;
  Recipe recipe_;
  std::vector<float> tilt_;  // [layers, E]: what makes some experts popular
  uint64_t state_ = 0x2545F4914F6CDD1D;
};

}  // namespace switchyard
