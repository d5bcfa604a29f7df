# What `cmake --install` and the packages hold, by component:
#   base     the window, the command line, the cpu engine, assets, help, completions, desktop files
#   torch    the reference backend with LibTorch          parquet  the writer of Parquet files with Arrow
#   cuda     the CUDA backend (engine/backend/cuda)        sdk      what plugins are built with (plugins/sdk)
# Everything is found relative to the program, so that a prefix may be moved: assets in ../share/switchyard, modules in
# ../lib/switchyard. The build tree has the same shape: bin/, lib/ and a link to the source tree's assets.
include(GNUInstallDirs)
set(SWITCHYARD_MODULES lib/switchyard)  # as engine/base/module.cpp looks for it, not the distribution's libdir

file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/share)
file(CREATE_LINK ${CMAKE_SOURCE_DIR}/assets ${CMAKE_BINARY_DIR}/share/switchyard SYMBOLIC)

install(TARGETS switchyard RUNTIME DESTINATION bin COMPONENT base)
install(DIRECTORY assets/ DESTINATION share/switchyard COMPONENT base PATTERN "*.py" EXCLUDE)
install(FILES README.md CHANGELOG.md DESTINATION share/doc/switchyard COMPONENT base)
# Licences of what is compiled in or brought along.
set(_licences share/doc/switchyard/licences)
install(FILES LICENSE DESTINATION ${_licences} RENAME Switchyard.txt COMPONENT base)
install(FILES ${SWITCHYARD_DEPS}/jinja-0.3.36/LICENSE DESTINATION ${_licences} RENAME llama.cpp.txt COMPONENT base)

# The program writes its own completions (app/cli/completion.cpp), when it is installed.
function(switchyard_written_by_program command file destination)
  install(CODE "
    file(MAKE_DIRECTORY \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${destination}\")
    execute_process(COMMAND \"$<TARGET_FILE:switchyard>\" ${command}
      OUTPUT_FILE \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${destination}/${file}\" COMMAND_ERROR_IS_FATAL ANY)"
    COMPONENT base)
endfunction()

switchyard_written_by_program("completion;bash" switchyard share/bash-completion/completions)
switchyard_written_by_program("completion;zsh" _switchyard share/zsh/vendor-completions)
switchyard_written_by_program("completion;fish" switchyard.fish share/fish/vendor_completions.d)
install(CODE "
  file(MAKE_DIRECTORY \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/share/man/man1\")
  foreach(page switchyard switchyard-gui)
    execute_process(COMMAND gzip -9nc \"${CMAKE_SOURCE_DIR}/packaging/debian/\${page}.1\"
      OUTPUT_FILE \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/share/man/man1/\${page}.1.gz\" COMMAND_ERROR_IS_FATAL ANY)
  endforeach()" COMPONENT base)

if(SWITCHYARD_WITH_GUI)
  install(TARGETS switchyard-gui RUNTIME DESTINATION bin COMPONENT base)
  install(TARGETS switchyard_imgui LIBRARY DESTINATION ${SWITCHYARD_MODULES} COMPONENT base)
  set_target_properties(switchyard-gui PROPERTIES INSTALL_RPATH "$ORIGIN/../${SWITCHYARD_MODULES}")
  install(FILES ${SWITCHYARD_DEPS}/imgui-1.93.0/imgui/LICENSE.txt DESTINATION ${_licences} RENAME ImGui.txt COMPONENT base)
  install(FILES ${SWITCHYARD_DEPS}/imgui-1.93.0/implot/LICENSE DESTINATION ${_licences} RENAME ImPlot.txt COMPONENT base)
  set(_desktop packaging/desktop)
  set(_id org.switchyard.Switchyard)
  string(TIMESTAMP SWITCHYARD_RELEASE_DATE "%Y-%m-%d" UTC)
  configure_file(${_desktop}/${_id}.metainfo.xml.in ${CMAKE_BINARY_DIR}/desktop/${_id}.metainfo.xml @ONLY)
  install(FILES ${_desktop}/${_id}.desktop DESTINATION share/applications COMPONENT base)
  install(FILES ${CMAKE_BINARY_DIR}/desktop/${_id}.metainfo.xml DESTINATION share/metainfo COMPONENT base)
  install(FILES ${_desktop}/${_id}.mime.xml DESTINATION share/mime/packages RENAME ${_id}.xml COMPONENT base)
  install(FILES assets/icons/switchyard.svg DESTINATION share/icons/hicolor/scalable/apps COMPONENT base)
  foreach(size 16 24 32 48 64 128 256)
    install(FILES assets/icons/${size}.png DESTINATION share/icons/hicolor/${size}x${size}/apps RENAME switchyard.png COMPONENT base)
  endforeach()
endif()

# A module with the libraries that it brings along, beside it in a folder of its own.
function(switchyard_module target component folder)
  install(TARGETS ${target} LIBRARY DESTINATION ${SWITCHYARD_MODULES} COMPONENT ${component})
  install(FILES ${ARGN} DESTINATION ${SWITCHYARD_MODULES}/${folder} COMPONENT ${component})
  set_target_properties(${target} PROPERTIES INSTALL_RPATH "$ORIGIN/${folder}")
endfunction()

if(SWITCHYARD_WITH_REFERENCE)
  set(_torch ${SWITCHYARD_DEPS}/libtorch-2.11.0/torch/lib)
  switchyard_module(switchyard_reference torch torch ${_torch}/libtorch_cpu.so ${_torch}/libc10.so ${_torch}/libgomp.so.1
    ${_torch}/libcudart.so.13 ${_torch}/libcupti.so.13)
  install(DIRECTORY ${SWITCHYARD_DEPS}/libtorch-2.11.0-licences/ DESTINATION share/doc/switchyard-torch/licences COMPONENT torch PATTERN .complete EXCLUDE)
endif()
if(SWITCHYARD_WITH_PARQUET)
  set(_arrow ${SWITCHYARD_DEPS}/arrow-26.0.1)
  switchyard_module(switchyard_parquet parquet arrow ${_arrow}/lib/libarrow.so.2600 ${_arrow}/lib/libparquet.so.2600)
  install(DIRECTORY ${_arrow}/licences/ DESTINATION share/doc/switchyard-parquet/licences COMPONENT parquet)
endif()
if(TARGET switchyard-plugin-host)
  install(TARGETS switchyard-plugin-host RUNTIME DESTINATION ${SWITCHYARD_MODULES} COMPONENT base)
endif()
install(TARGETS switchyard_paper LIBRARY DESTINATION ${SWITCHYARD_MODULES} COMPONENT base)
if(TARGET switchyard_cuda)
  install(TARGETS switchyard_cuda LIBRARY DESTINATION ${SWITCHYARD_MODULES} COMPONENT cuda)
  # It holds the static CUDA runtime.
  install(FILES ${SWITCHYARD_DEPS}/libtorch-2.11.0-licences/nvidia-cuda-runtime/License.txt
    DESTINATION share/doc/switchyard-cuda/licences RENAME CUDA-runtime.txt COMPONENT cuda)
endif()
