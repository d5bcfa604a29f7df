# Debian packages by CPack: `cpack -G DEB` in a build folder makes one .deb a component (SwitchyardInstall.cmake).
# Dependencies on the distribution's libraries come from dpkg-shlibdeps; what a component brings along lies in
# lib/switchyard, where no other program looks.
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON)  # packages hold what was built; tests are no part of them
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME switchyard)
set(CPACK_PACKAGE_VENDOR "Switchyard")
set(CPACK_PACKAGE_CONTACT "Switchyard developers <developers@switchyard.invalid>")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_GROUPING ONE_PER_GROUP)
get_cmake_property(CPACK_COMPONENTS_ALL COMPONENTS)
list(REMOVE_ITEM CPACK_COMPONENTS_ALL Unspecified)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)  # minutes for LibTorch; `cpack -D CPACK_DEBIAN_COMPRESSION_TYPE=gzip` is quick
set(CPACK_THREADS 0)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${CMAKE_BINARY_DIR}/lib)

# A package: its name is the program's with the component behind it.
#   switchyard_package(COMPONENT "one line" "text" [DEPENDS …] [RECOMMENDS …] [SUGGESTS …])
function(switchyard_package component summary text)
  if(NOT component IN_LIST CPACK_COMPONENTS_ALL)
    return()
  endif()
  cmake_parse_arguments(PACKAGE "" "DEPENDS;RECOMMENDS;SUGGESTS" "" ${ARGN})
  string(TOUPPER ${component} upper)
  set(name switchyard-${component})
  if(component STREQUAL base)
    set(name switchyard)
  endif()
  set(CPACK_DEBIAN_${upper}_PACKAGE_NAME ${name} PARENT_SCOPE)
  set(CPACK_COMPONENT_${upper}_DESCRIPTION "${summary}\n${text}" PARENT_SCOPE)
  foreach(relation DEPENDS RECOMMENDS SUGGESTS)
    if(PACKAGE_${relation})
      set(CPACK_DEBIAN_${upper}_PACKAGE_${relation} "${PACKAGE_${relation}}" PARENT_SCOPE)
    endif()
  endforeach()
  install(FILES ${CMAKE_SOURCE_DIR}/packaging/debian/copyright DESTINATION share/doc/${name} COMPONENT ${component})
  string(TIMESTAMP date "%a, %d %b %Y %H:%M:%S +0000" UTC)
  install(CODE "
    set(changelog \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/share/doc/${name}/changelog\")
    file(WRITE \"\${changelog}\" \"switchyard (${PROJECT_VERSION}) unstable; urgency=medium\n\n  * What changed: /usr/share/doc/switchyard/CHANGELOG.md\n\n -- ${CPACK_PACKAGE_CONTACT}  ${date}\n\")
    execute_process(COMMAND gzip -9nf \"\${changelog}\" COMMAND_ERROR_IS_FATAL ANY)" COMPONENT ${component})
  if(EXISTS ${CMAKE_SOURCE_DIR}/packaging/debian/${name}.lintian-overrides)
    install(FILES ${CMAKE_SOURCE_DIR}/packaging/debian/${name}.lintian-overrides DESTINATION share/lintian/overrides
      RENAME ${name} COMPONENT ${component})
  endif()
endfunction()

set(_same "switchyard (= ${PROJECT_VERSION})")
switchyard_package(base "watch and edit the routing of Mixture-of-Experts models"
  "Opens a checkpoint, lets it write, and shows every layer's routing while\ntokens are generated; experts are muted, forced or biased and the next token\nobeys. The window, the command line, the cpu engine, a small trained model\nand the help are here."
  DEPENDS "fonts-dejavu-core, hicolor-icon-theme"
  RECOMMENDS "libgl1-mesa-dri, fonts-inter, fonts-jetbrains-mono, fonts-droid-fallback"
  SUGGESTS "switchyard-torch, switchyard-parquet")
switchyard_package(torch "LibTorch backend of Switchyard, the fp32 reference"
  "The backend that judges all numbers, gradients of router logits, and families\nthat the cpu engine lacks. Brings the CPU part of LibTorch along."
  DEPENDS "${_same}")
switchyard_package(parquet "Parquet export of Switchyard"
  "The module that writes routing traces as Parquet files. Brings Arrow and its\nParquet library along."
  DEPENDS "${_same}")
switchyard_package(cuda "CUDA backend of Switchyard"
  "Runs models on NVIDIA GPUs. Needs their driver."
  DEPENDS "${_same}" RECOMMENDS "nvidia-driver | nvidia-driver-any")
switchyard_package(sdk "what plugins of Switchyard are built with"
  "The plugin contract in C headers, its C++ wrapper and a CMake package."
  DEPENDS "${_same}" RECOMMENDS "g++, cmake")
include(CPack)
